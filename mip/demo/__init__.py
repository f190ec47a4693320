"""The demo: houses drawn from known prices, and three models compared on them."""

from mip.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
