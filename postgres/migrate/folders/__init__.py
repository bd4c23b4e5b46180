"""Folders of migrations as their tools keep them: which tool, which files, in which order."""
