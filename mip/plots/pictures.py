"""Images in a grid, with their labels."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from mip.data import Table, as_array, as_photo, as_photos
from mip.errors import DataError, MipError
from mip.images import is_photos, resolve_path
from mip.pipe import Pipe
from mip.plots.figures import figure, finish, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


CELL, LETTERS = 1.45, 19
"""The width of an image in inches, and the letters that fit above it."""


RIGHT, WRONG = "#2b7a46", "#b3361e"
"""Colours of predictions."""


def images(
    source: Any,
    labels: Sequence[Any] | None = None,
    *,
    column: str | None = None,
    predicted: Any = None,
    chances: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    limit: int = 24,
    columns: int = 8,
    title: str | None = None,
    path: str | Path | None = None,
    overwrite: bool = False,
) -> Figure:
    """Draw the first `limit` images in a grid, each below its label.

    The source is a tensor or array [n, 3, h, w], [n, 1, h, w], [n, h, w, 3] or [n, h, w], a list of
    these without n, of Pillow images, paths or bytes of files, a Table with the `column` of
    photos, a batch, a pipe, whose first batch is drawn, or a Dataset of (image, label). Pixels are
    uint8, or floats from 0 to 1; an image with others, such as a standardised one, is drawn from
    its lowest to its highest.

    `labels` are texts, numbers, or the name of another column of the table; batches and Datasets
    have their own. A number counts the `classes`, if they are given. With `predicted` the
    prediction follows the label, green if it is right and red if it is wrong: labels like these,
    scores of the classes [n, k], of which the largest counts, or the DataFrame that a predictor
    returns. `chances` are the probabilities of the predictions.

    >>> fig = images(np.zeros((3, 8, 8), np.uint8), [0, 1, 1], classes=["cat", "dog"])
    >>> [axes.get_title() for axes in fig.axes]
    ['cat', 'dog', 'dog']
    """
    pictures, own_labels = _pictures(source, column, labels, limit)
    if not pictures:
        raise DataError("there are no images to draw")
    names = _texts(own_labels, classes, len(pictures), "labels")
    guesses = _texts(predicted, classes, len(pictures), "predictions")
    shares = _percents(chances, len(pictures))
    fig, grid = _grid(pictures, columns, (names is not None) + (guesses is not None))
    letters = int(LETTERS * fig.get_figwidth() / (CELL * min(columns, len(pictures))))
    for k, (axes, picture) in enumerate(zip(grid, pictures, strict=True)):
        show_picture(axes, picture)
        lines, colour = [shorten(names[k], letters)] if names else [], "black"
        if guesses:
            guess = shorten(guesses[k], letters - 2 - len(shares[k]))
            lines.append(f"→ {guess}{shares[k]}")
        if names and guesses:
            colour = RIGHT if names[k] == guesses[k] else WRONG
        axes.set_title("\n".join(lines), fontsize=8, color=colour, pad=3)
    return finish(fig, title, path, overwrite)


def _grid(pictures: Sequence[np.ndarray], columns: int, lines: int) -> tuple[Figure, list[Axes]]:
    # Axes for the pictures, as high as most of them with so many lines of text above.
    n_columns = min(columns, len(pictures))
    n_rows = -(-len(pictures) // n_columns)
    width = CELL if n_columns > 3 else 2 * CELL  # a few images are larger
    ratio = float(np.median([picture.shape[0] / picture.shape[1] for picture in pictures]))
    height = width * min(max(ratio, 0.3), 3) + 0.16 * lines + 0.06
    fig = figure(width * n_columns, height * n_rows + 0.1)
    grid = fig.subplots(n_rows, n_columns, squeeze=False).flatten().tolist()
    for axes in grid[len(pictures) :]:
        fig.delaxes(axes)
    return fig, grid[: len(pictures)]


def show_picture(axes: Axes, pixels: np.ndarray) -> None:
    """Show pixels [h, w] or [h, w, 3] without axes."""
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1 if pixels.dtype.kind == "f" else 255)
    axes.axis("off")


def read_picture(cell: Any, root: Path | None = None) -> np.ndarray:
    """Return the pixels of an image, uint8 or float from 0 to 1: [h, w] or [h, w, 3].

    A path is relative to `root`, if that is given, and then inside it. Raises DataError for what is
    no image. A missing one is a grey square.
    """
    from PIL import Image, ImageOps

    cell = as_photo(cell)
    if cell is None:
        return np.full((8, 8), 0.85)
    if isinstance(cell, (Tensor, np.ndarray)):
        return _pixels(as_array(cell))
    if isinstance(cell, str):
        cell = resolve_path(root, cell) if root else Path(cell)
    name = cell if isinstance(cell, Path) else "the image"
    try:
        image = cell if isinstance(cell, Image.Image) else Image.open(_file(cell))
        image = ImageOps.exif_transpose(image)
        image.thumbnail((400, 400))
        if image.mode.startswith("I"):
            return _pixels(np.asarray(image).astype(float))
        return np.asarray(image.convert("L" if image.mode in {"1", "L"} else "RGB"))
    except Exception as error:  # decoders may raise anything for a broken file
        raise DataError(f"{name}: cannot be drawn ({error})") from error


def _file(cell: Any) -> Any:
    return io.BytesIO(cell) if isinstance(cell, bytes) else cell


def _pixels(array: np.ndarray) -> np.ndarray:
    # [h, w, 3] or [h, w] of pixels in any of the usual forms.
    if array.ndim == 3 and array.shape[0] in (1, 3, 4):
        is_last = array.shape[2] in (1, 3, 4) and array.shape[1] != array.shape[2]
        array = array if is_last else np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        shape = list(array.shape)
        raise DataError(f"an image is [h, w], [h, w, 3], [3, h, w] or [1, h, w], not {shape}")
    if array.dtype.kind == "b":
        return array.astype(float)
    if array.dtype == np.uint8:
        return array
    array = array.astype(float)
    finite = array[np.isfinite(array)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
    if low < 0 or high > 1:
        array = (array - low) / max(high - low, 1e-12)
    return np.nan_to_num(array)


def _pictures(
    source: Any, column: str | None, labels: Any, limit: int
) -> tuple[list[np.ndarray], Any]:
    if isinstance(source, Table):
        if column is None:
            raise MipError(f"images of a table need column=: one of {', '.join(source.columns)}")
        table = source.take(range(min(limit, len(source))))
        cells = [as_photos(cell)[0] for cell in table[column]]
        texts = table.texts(labels).tolist() if isinstance(labels, str) else labels
        return [read_picture(cell, source.root) for cell in cells], texts
    if isinstance(labels, str):
        raise MipError(f"labels='{labels}' is a column, and the images are not in a Table")
    if isinstance(source, (str, Path)):
        source = [source]
    source = source[0] if isinstance(source, Pipe) else source
    if isinstance(source, tuple) and len(source) >= 2 and not _is_pair(source):
        source, labels = source[0], source[1] if labels is None else labels
    source = _find_photos(source)
    if is_photos(source):
        rows = zip(source["pixels"][:limit], source["present"][:limit], strict=True)
        return [_side_by_side(pixels, present) for pixels, present in rows], labels
    if isinstance(source, Mapping):
        raise DataError(f"no images are in a dict of {', '.join(map(str, source))}")
    items = list(islice(_items(source), limit))
    if items and all(_is_pair(item) for item in items):
        labels = [item[1] for item in items] if labels is None else labels
        items = [item[0] for item in items]
    return [read_picture(item) for item in items], labels


def _items(source: Any) -> Iterable[Any]:
    if not hasattr(source, "__len__") or not hasattr(source, "__getitem__"):
        return source
    return (source[k] for k in range(len(source)))


def _is_pair(item: Any) -> bool:
    # An image and its label, not a batch of both.
    is_item = isinstance(item, (tuple, list)) and len(item) == 2
    return is_item and (np.ndim(item[1]) == 0 if not hasattr(item[1], "dim") else not item[1].dim())


def _find_photos(inputs: Any) -> Any:
    # The first photos of a batch: in a dict of branches, which may be nested.
    if isinstance(inputs, Mapping) and not is_photos(dict(inputs)):
        found = [_find_photos(child) for child in inputs.values()]
        return next((each for each in found if is_photos(each)), inputs)
    return inputs


def _side_by_side(pixels: Tensor, present: Tensor) -> np.ndarray:
    # The photos of a row, [k, 3, s, s]; a missing one is grey.
    shown = pixels.clone()
    shown[present == 0] = 217
    kept = shown[present >= 0] if (present >= 0).any() else shown[:1]
    return np.concatenate([photo.permute(1, 2, 0).cpu().numpy() for photo in kept], axis=1)


def _texts(values: Any, classes: Sequence[str] | None, count: int, what: str) -> list[str] | None:
    if values is None:
        return None
    if hasattr(values, "columns"):
        values = values["label"].astype(str) if "label" in values else values["value"]
    if getattr(values, "ndim", 1) == 2:  # scores of classes, or a column
        _check_count(values.shape[1], classes)
        values = values.argmax(1) if values.shape[1] > 1 else values[:, 0]
    cells = values.tolist() if hasattr(values, "tolist") else list(values)
    if len(cells) < count:
        raise DataError(f"there are {len(cells)} {what} for {count} images")
    return [_text(cell, classes) for cell in cells[:count]]


def _check_count(count: int, classes: Sequence[str] | None) -> None:
    if classes is not None and count not in {1, len(classes)}:
        raise DataError(f"predictions of {count} classes, but there are {len(classes)}")


def _percents(chances: Sequence[float] | None, count: int) -> list[str]:
    if chances is None:
        return [""] * count
    if len(chances) < count:
        raise DataError(f"there are {len(chances)} chances for {count} images")
    return [f" {float(chance):.0%}" for chance, _ in zip(chances, range(count), strict=False)]


def _text(cell: Any, classes: Sequence[str] | None) -> str:
    cell = cell.item() if hasattr(cell, "item") else cell
    if classes is not None and isinstance(cell, (int, float)):
        if not 0 <= cell < len(classes) or cell != int(cell):
            raise DataError(f"{cell} is none of the {len(classes)} classes")
        return str(classes[int(cell)])
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
