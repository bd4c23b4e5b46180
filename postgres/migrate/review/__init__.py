"""What a file of SQL would do to a database, told before it runs."""
