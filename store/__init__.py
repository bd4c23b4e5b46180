"""Our own database: its tables, its migrations, and how to reach it."""
