"""Runs: the queue, steps that survive a crash, locks, progress."""
