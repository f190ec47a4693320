"""What we train."""
