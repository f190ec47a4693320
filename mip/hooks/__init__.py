"""Ready-made hooks: functions of the events of a fit that watch it, and may steer it.

To add a hook: write a function that returns one in the file of its purpose; show it in
`__init__.pyi`; describe it in `docs/hooks.md`; list it in `tests/hooks/test_reused_hooks.py`.
"""

from mip.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
