"""The shell: Slack, HTTP and the command line. Only here things are wired together."""
