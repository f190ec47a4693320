"""Whole runs from a spec: training, resuming, cross-validation, sweeps, replays."""

from mip.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
