"""Schemas as they are declared and as they are: read, made, compared."""
