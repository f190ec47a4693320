"""Data: from files and memory to the rows of a Table; what a cell means, splits, statistics."""

from mip.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
