"""What we know about PostgreSQL, usable without the rest of Twokey."""
