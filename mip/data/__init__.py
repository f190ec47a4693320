"""Data: from files and memory to the rows of a Table; what a cell means, splits, statistics."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
