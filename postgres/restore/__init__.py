"""Restoring and verifying backups."""
