"""Training with pytorch-widedeep."""
