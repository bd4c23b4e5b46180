"""The `twokey` command."""
