"""What Slack sends, parsed and handed on."""
