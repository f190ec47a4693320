"""Heads: what a model can predict, one kind per file; vectors in, a loss and predictions out.

To add a kind of target:

1. Copy `regression.py` for a number or `multiclass.py` for a class, and show it in `__init__.pyi`.
   A head predicts one column; several targets are several heads (`joint`).
2. List it in `mip/spec/kinds.py`, what others call it in `mip/spec/synonyms.py`, and metrics of
   which more is better in `mip/metrics/ranking.py`.
3. Give it a line in `tests/every_head.py` and a section in `docs/models.md`.

What kinds share is in `targets/` (cells to tensors), `losses.py` and `fields.py`, and their metrics
in `mip/metrics`; `protocol.py` has the verbs.
"""

from mip.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
