"""Layers: their weights, and their outputs over the forward passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from mip.errors import MipError
from mip.explain import Record, histograms, statistics_of, to_frame
from mip.plots.figures import finish, legend, panels
from mip.train import State

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MAX_COLUMNS = 5
"""Panels in a row at most."""


MAX_TITLE = 34
"""Letters of a path that fit above a panel."""


@runtime_checkable
class HasState(Protocol):
    """What `mip.run` and `mip.load_checkpoint` return."""

    @property
    def state(self) -> State: ...


def weights(
    model: nn.Module | State | Mapping[str, Tensor] | HasState,
    bins: int = 40,
    *,
    title: str | None = None,
    path: str | Path | None = None,
    overwrite: bool = False,
) -> Figure:
    """Draw a histogram of the numbers in each parameter of a net, a state, a dict of tensors, or
    of what has a state: a run or a checkpoint.

    Each panel has its own scales; its title has the mean and the standard deviation. Numbers that
    are not finite are counted there and not drawn. Raises MipError if there are no parameters.

    >>> fig = weights(nn.Linear(3, 2), bins=4)
    >>> [int(sum(bar.get_height() for bar in axes.patches)) for axes in fig.axes]
    [6, 2]
    """
    params = _params(model)
    if not params:
        raise MipError("there are no parameters to draw")
    fig, axes = panels([shorten_path(name) for name in params], MAX_COLUMNS, 1.6, sharex=False)
    for panel, param in zip(axes, params.values(), strict=True):
        _plot_weights(panel, param, bins)
    fig.supylabel("count", fontsize=9)
    return finish(fig, title, path, overwrite)


def _params(model: nn.Module | State | Mapping[str, Tensor] | HasState) -> dict[str, Tensor]:
    if isinstance(model, HasState) and not isinstance(model, nn.Module):
        model = model.state
    if isinstance(model, nn.Module):
        return dict(model.named_parameters())
    params = model.params if isinstance(model, State) else model
    return {name: param for name, param in params.items() if param.numel()}


def _plot_weights(axes: Axes, param: Tensor, bins: int) -> None:
    numbers = param.detach().cpu().to(torch.float64).flatten().numpy()
    finite = numbers[np.isfinite(numbers)]
    axes.hist(finite, bins=min(bins, 1 + int(2 * len(finite) ** 0.5)), color="#2f6db3")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.02)
    axes.locator_params(nbins=4)
    lost = len(numbers) - len(finite)
    summary = f"{finite.mean():.2g} ± {finite.std():.2g}" if len(finite) else ""
    text = ", ".join(filter(None, [summary, f"{lost:,} not finite" if lost else ""]))
    axes.set_title(f"{axes.get_title('left')}\n{text}", fontsize=7, loc="left")


def activations(
    records: Sequence[Record],
    *,
    title: str | None = "mean ± standard deviation of layer outputs",
    path: str | Path | None = None,
    overwrite: bool = False,
) -> Figure:
    """Draw what `mip.explain.record_activations` recorded, mean ± standard deviation by pass: a
    panel for each layer, each with its own scale, and a line for each call within a pass.

    Raises MipError if there are no records or they hold no statistics.
    """
    passes = _passes(records)
    rows = {str(name): group for name, group in to_frame(records).groupby("path", sort=False)}
    fig, axes = _panels(_titles(records), passes)
    for panel, group in zip(axes, rows.values(), strict=True):
        _plot_calls(panel, group)
        panel.spines[["top", "right"]].set_visible(False)
    legend(fig, axes)
    return finish(fig, title, path, overwrite)


def _plot_calls(axes: Axes, rows: pd.DataFrame) -> None:
    for call, lines in rows.groupby("call"):
        x, mean, std = lines["pass"], lines["mean"], lines["std"]
        colour = f"C{call}"
        axes.fill_between(x, mean - std, mean + std, color=colour, alpha=0.2, linewidth=0)
        # Neither a line nor a band would show a single pass.
        yerr, marker = (std, "o") if len(lines) == 1 else (None, None)
        axes.errorbar(
            x,
            mean,
            yerr,
            color=colour,
            linewidth=1.2,
            marker=marker,
            capsize=3,
            label=f"call {call}",
        )


def activation_histograms(
    records: Sequence[Record],
    *,
    title: str | None = "distribution of layer outputs: log(1 + count)",
    path: str | Path | None = None,
    overwrite: bool = False,
) -> Figure:
    """Draw the histograms of each layer as an image: a column for each pass, a row for each bin,
    log(1 + count), with a colour scale for each layer. Bins cover the `span` of
    `record_activations`, by default 0 to 10; a panel's title has the share of what lies outside.

    Raises MipError if there are no records or they hold no statistics.
    """
    passes, images = _passes(records), histograms(records)
    fig, axes = _panels(_titles(records), passes, sharey=True)
    extent = (passes[0] - 0.5, passes[-1] + 0.5, *statistics_of(records[0]).span)
    for panel, (name, counts) in zip(axes, images.items(), strict=True):
        total = sum(statistics_of(record).size for record in records if record.path == name)
        outside = 1 - int(counts.sum()) / max(total, 1)
        if outside > 0 and total:
            panel.set_title(
                f"{panel.get_title('left')}\n{outside:.0%} outside", fontsize=7, loc="left"
            )
        image = _image(counts, passes)
        panel.imshow(
            image.numpy(), origin="lower", aspect="auto", extent=extent, interpolation="nearest"
        )
    return finish(fig, title, path, overwrite)


def _image(counts: Tensor, passes: Sequence[int]) -> Tensor:
    # The records may be a selection: the column of a pass without records stays blank.
    image = torch.full((len(counts), passes[-1] - passes[0] + 1), torch.nan)
    image[:, [number - passes[0] for number in passes]] = counts.float().log1p()
    return image


def _titles(records: Sequence[Record]) -> list[str]:
    # The path of each layer and its type.
    layers = {record.path: record.layer for record in records}
    return [f"{shorten_path(path)}  {layer}".rstrip() for path, layer in layers.items()]


def _passes(records: Sequence[Record]) -> list[int]:
    if not records:
        raise MipError("no records to draw: nothing ran inside the block")
    for record in records:
        statistics_of(record)
    return sorted({record.pass_ for record in records})


def _panels(
    titles: Sequence[str], passes: Sequence[int], sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    fig, axes = panels(titles, MAX_COLUMNS, 1.7, sharey=sharey)
    # All passes are on the axis: where a layer's output was NaN, its line has a gap.
    axes[0].set_xlim(min(passes) - 0.5, max(passes) + 0.5)
    fig.supxlabel("pass", fontsize=9)
    fig.supylabel("activation", fontsize=9)
    return fig, axes


def shorten_path(path: str) -> str:
    """Shorten a path to its end, which tells layers apart.

    >>> shorten_path("photos.net.backbone.cut.features.layer1.0.relu")
    '…cut.features.layer1.0.relu'
    >>> shorten_path("head.1"), shorten_path("")
    ('head.1', 'the module')
    """
    if len(path) <= MAX_TITLE:
        return path or "the module"
    end = path[1 - MAX_TITLE :]
    return "…" + end[end.find(".") + 1 :]
