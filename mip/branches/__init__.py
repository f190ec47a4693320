"""The kinds of branches, one a file: what a model can read."""
