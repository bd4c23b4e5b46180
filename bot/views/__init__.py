"""Messages and modals as pure functions."""
