"""A stand-in for Slack's servers, as strict as Slack."""
