"""From a spec and its rows to a plan, and from a plan to a module."""

from mip.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
