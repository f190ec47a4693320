"""From a spec and its rows to a plan, and from a plan to a module."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
