"""Figures: histories, learning rates, the tree of a model.

To add a figure: write a function that returns a `Figure` or writes one by `write_figure`, and show
it in `__init__.pyi`; list what writes a file in `WRITERS` of `tests/ground/test_output.py`. A hook
or a verb calls it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
