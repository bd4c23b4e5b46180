"""Declared changes: expand, migrate, contract and shadow columns out of a file of YAML."""
