"""Training with mip."""
