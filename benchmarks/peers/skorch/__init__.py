"""Training with skorch."""
