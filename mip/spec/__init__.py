"""Specs: a TOML file in, a frozen tree of values out, and back; the table of kinds."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
