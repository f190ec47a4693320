"""What skorch trains."""
