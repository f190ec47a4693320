"""What a model has learned: the outputs of its layers while it runs."""

from mip.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
