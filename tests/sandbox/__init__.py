"""Tests of the Slack stand-in, through the real SDK and the real Bolt."""
