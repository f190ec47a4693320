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
    data, engine = io.BytesIO(), fig.get_layout_engine()
    if engine is not None and fig.axes:
        # savefig would draw everything twice, once for the layout alone.
        engine.execute(fig)
        fig.set_layout_engine("none")
    fig.savefig(data, dpi=120, format=suffix)
    fig.set_layout_engine(engine)
    return data.getvalue()
