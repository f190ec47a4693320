"""What keras trains."""
