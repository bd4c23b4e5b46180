"""Rows changed in batches while the application runs: resumable, throttled, none done twice."""
