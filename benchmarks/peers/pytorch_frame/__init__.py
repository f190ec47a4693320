"""Training with PyTorch Frame."""
