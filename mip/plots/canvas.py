"""The figure that every plot returns. Importing this module imports matplotlib."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class Canvas(Figure):
    """A figure of matplotlib that a notebook shows without pyplot, and so exactly once."""

    def _repr_png_(self) -> bytes:
        return render(self)


def render(fig: Figure, suffix: str = "png") -> bytes:
    """Render a figure in the format of a file's suffix."""
    data = io.BytesIO()
    fig.savefig(data, dpi=120, format=suffix)
    return data.getvalue()
