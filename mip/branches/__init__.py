"""Branches: what a model can read, one kind a file; rows in, encoded tensors and a module out."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
