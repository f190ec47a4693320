"""Training: gradients, the pure step, and `fit`, which folds it over a pipe."""

from mip.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
