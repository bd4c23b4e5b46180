"""Taking backups."""
