"""A Slack workspace and PostgreSQL clusters on one's own machine."""
