"""Optimizers as pairs (init, update), transforms that wrap them, and schedules.

The docstring of `optimizers/` says how to add an optimizer. To add a schedule:

1. Write it as a function of the step in `schedules.py`, and as a class for specs, in fractions of
   the run, in `schedule_kinds.py`; show both in `__init__.pyi`.
2. List the class in `mip/spec/kinds.py`.
3. Add it to `tests/optim/test_schedules.py` and to the table of schedules in `docs/training.md`.
"""

from mip.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
