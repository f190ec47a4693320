"""Heads: what a model can predict, one kind a file; vectors in, a loss and predictions out.

To add a kind, copy `regression.py` for a number, `multiclass.py` for a class, and put it into
`mip/spec/kinds.py`. What kinds share is in `targets/` (cells to tensors), `losses.py`, `metrics.py`
and `fields.py`; `protocol.py` has the verbs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
