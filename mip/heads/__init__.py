"""The kinds of heads: what a model can say."""
