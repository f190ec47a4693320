"""From a model and rows to predictions; evaluation, ensembles, simple models to compare with."""

from mip.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
