"""Slack's side: each module listens to one kind of thing, parses it, calls the desk, replies."""
