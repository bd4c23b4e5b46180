"""Who may agree to what: the approval engine, its record and its audit."""
