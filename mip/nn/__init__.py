"""Modules, backbones, and the initial values of parameters."""

from mip.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
