"""Specs: a TOML file in, a frozen tree of values out, and back; the table of kinds."""

from mip.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
