"""What a model has learned: what its predictions rest on, and the outputs of its layers."""

from mip.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
