"""The kinds of optimizers, one a file: how a model can be trained."""
