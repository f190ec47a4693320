"""What lightning trains."""
