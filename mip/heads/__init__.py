"""Heads: what a model can predict, one kind a file; vectors in, a loss and predictions out."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
