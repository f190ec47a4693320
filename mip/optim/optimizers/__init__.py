"""The kinds of optimizers, one a file, and any of torch's."""
