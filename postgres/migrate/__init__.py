"""Changes of a schema and of its data: reviewed, rehearsed, applied in small steps, taken back."""
