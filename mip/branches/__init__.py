"""Branches: what a model reads, one kind per file.

To add a kind of column: write its class, with the verbs of `Branch`, in a file of this folder; show
it in `__init__.pyi`; list it in `mip/spec/kinds.py`; describe it in `docs/models.md`. The optional
verbs are in `protocol.py`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
