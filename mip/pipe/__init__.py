"""The pipe: from rows to batches; samplers, stages, and the nodes that run them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
