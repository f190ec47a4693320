"""Figures: histories, losses, predictions, classes, images, layers, the tree of a model.

Every plot is a function of its data that returns a `Figure` of matplotlib and takes `title=`,
`path=` and `overwrite=`: with a path the figure is also written, in the format of the path's suffix
(`mip.plots.figures.FORMATS`), whole or not at all, and over an existing file only with `overwrite`.
pyplot is not used, so figures need not be closed. matplotlib is the extra `plot`; without it every
plot raises MipError.

To add a plot: write such a function, which ends with `finish`, and show it in `__init__.pyi`; list
it in `PLOTS` of `tests/plots/test_plots.py`.
"""

from mip.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
