"""Images: from a cell of a table to pixels."""

from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from toolz import identity
from torch import Tensor

from mip.data import array_of, photo
from mip.errors import DataError, shown

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


Cell = Any
"""A path, a file's bytes, a dict with either, a PIL image, or pixels uint8 [h, w] or [h, w, 3]."""


FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""The only decoders that are ever tried, whatever the file's ending says."""


MAX_PIXELS = 89_478_485
"""Larger images are refused before a pixel is decoded; from here on Pillow warns too."""


JPEGS = ("JPEG", "MPO")
"""What Pillow calls a JPEG; the second holds more pictures behind the first."""


MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""What ends the coded pixels of a JPEG: a marker that is not a restart of theirs."""


ORIENTATION = 0x0112


TURNS: Mapping[int, Callable[[Tensor], Tensor]] = {
    2: lambda pixels: pixels.flip(-1),
    3: lambda pixels: pixels.flip(-1, -2),
    4: lambda pixels: pixels.flip(-2),
    5: lambda pixels: pixels.mT,
    6: lambda pixels: pixels.mT.flip(-1),
    7: lambda pixels: pixels.mT.flip(-1, -2),
    8: lambda pixels: pixels.mT.flip(-2),
}
"""EXIF's orientations: what puts an image upright that the camera stored turned or mirrored."""


class MissingImageError(DataError):
    """There is no file of the image's name; what is wrong with one that is there is a DataError."""


def locate(root: Path | None, cell: str) -> Path:
    """Find the file an image cell names, inside the table's folder.

    Raises DataError when the path is absolute, leaves the folder ('..', a link), holds a NUL
    or a backslash, or names no file.

    >>> locate(Path("."), "../secret.png")
    Traceback (most recent call last):
    mip.errors.DataError: ../secret.png leaves the table's folder
    """
    if "\0" in cell or "\\" in cell:
        raise DataError(f"{shown(cell, 80)} has a character that no image path may have")
    try:
        return _inside(os.path.realpath(root or "."), cell)
    except (OSError, ValueError) as error:  # too long, a loop of links, no access
        raise DataError(f"{shown(cell, 80)} cannot be looked up ({error})"[:200]) from error


def _plain(path: str) -> str:
    return path if path.isprintable() and len(path) <= 200 else shown(path, 200)


def _inside(base: str, cell: str) -> Path:
    # With texts instead of Paths, for this is done for every photo.
    path = os.path.realpath(os.path.join(base, cell))
    if os.path.isabs(cell) or not f"{path}{os.sep}".startswith(f"{base.rstrip(os.sep)}{os.sep}"):
        raise DataError(f"{_plain(cell)} leaves the table's folder")
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingImageError(f"{_plain(cell)} is missing") from error
    if not S_ISREG(found.st_mode):
        raise MissingImageError(f"{_plain(cell)} is missing")
    if not found.st_size:
        raise DataError(f"{_plain(cell)} is empty (0 bytes)")
    return Path(path)


def decode(root: Path | None, cell: Cell, size: int, scaled: bool = False) -> Tensor:
    """Decode one image to uint8 [3, size, size], squeezed to a square (bilinear, antialiased).

    A cell is a path inside `root`, the bytes of a file, a dict {"bytes": …, "path": …} with either,
    a PIL image, or pixels uint8 [h, w] or [h, w, 3] (an array or a tensor). The camera's rotation
    is applied, colours are converted to sRGB, alpha is laid on white, 16-bit greys are scaled, and
    of an animation the first frame counts. `scaled` lets a JPEG be decoded at an eighth, a quarter
    or half of its size where that is still enough: faster, and not quite the same pixels. Raises
    DataError with the reason when the file is missing, truncated, no image, or too large.

    >>> decode(None, torch.full((2, 4), 7, dtype=torch.uint8), 1).flatten().tolist()
    [7, 7, 7]
    """
    with _read(root, cell) as (image, data):
        pixels = _decoded(image, data, _factor(image, size) if scaled else 1)
        turn = image.getexif().get(ORIENTATION, 1)
        return TURNS.get(turn, identity)(_squeezed(pixels, size)).contiguous()


@contextmanager
def _read(root: Path | None, cell: Cell) -> Iterator[tuple[Image.Image, Any]]:
    cell = photo(cell)
    with _named(_plain(cell) if isinstance(cell, str) else "the image"):
        data = locate(root, cell).read_bytes() if isinstance(cell, str) else cell
        with _opened(data) as image:
            yield image, data


@contextmanager
def _named(name: str) -> Iterator[None]:
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{name} is not an image ({', '.join(FORMATS)})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{name} has more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # decoders raise whatever a broken file provokes
        reason = "truncated" if "truncated" in str(error).lower() else f"broken ({_line(error)})"
        raise DataError(f"{name} is {reason}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _opened(data: Any) -> Image.Image:
    from PIL import Image

    if isinstance(data, Image.Image):
        return data.copy()
    held = isinstance(data, bytes)
    image = Image.open(io.BytesIO(data), formats=FORMATS) if held else _from_pixels(data)
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError
    return image


def _from_pixels(data: Any) -> Image.Image:
    import numpy as np
    from PIL import Image

    pixels = array_of(data)
    if pixels.dtype != np.uint8 or pixels.ndim not in {2, 3} or pixels.shape[2:] not in {(), (3,)}:
        told = f"{type(data).__name__} of {pixels.dtype} {list(pixels.shape)}"
        cure = "; colours come last: permute(1, 2, 0)" if pixels.shape[:1] == (3,) else ""
        known = "a path, bytes, a PIL image, or uint8 [h, w] or [h, w, 3]"
        raise DataError(f"an image is {known}, not {told}{cure}")
    return Image.fromarray(pixels)


def _factor(image: Image.Image, size: int) -> int:
    enough = (f for f in (8, 4, 2) if min(image.size) // f >= size)
    return next(enough, 1) if image.format in JPEGS else 1


def _decoded(image: Image.Image, data: Any, factor: int) -> np.ndarray:
    import numpy as np
    from PIL import ImageFile

    scan = image.fp.tell() if isinstance(image, ImageFile.ImageFile) and image.fp else 0
    plain = image.format in JPEGS and image.mode in {"RGB", "L"} and not _profile(image)
    pixels = _simplejpeg(data, image, factor) if plain else None
    if pixels is None:
        if factor > 1:
            image.draft(None, (image.width // factor, image.height // factor))
        image.load()
    if scan and image.format == "JPEG":
        _check_whole(data, scan, _last(image) if pixels is None else pixels[-1, -1, :3])
    return np.array(_rgb(image)) if pixels is None else pixels


def _last(image: Image.Image) -> Any:
    return image.getpixel((image.width - 1, image.height - 1))


def _check_whole(data: bytes, scan: int, last: Any) -> None:
    # libjpeg paints in mid grey, without a word, what a photo lacks before its end.
    import numpy as np

    grey = set(np.ravel(last).tolist()) <= {127, 128}
    if data.rfind(b"\xff\xd9", scan) < 0 or (grey and _reads_on(data, scan)):
        raise ValueError("truncated")


def _reads_on(data: bytes, scan: int) -> bool:
    # Bytes put before the marker are passed over, unless pixels are still wanted.
    from PIL import Image

    found = MARKER.search(data, scan)
    place = found.start() if found else len(data)
    longer = data[:place] + bytes(range(1, 255)) + data[place:]
    one, other = (Image.open(io.BytesIO(each), formats=FORMATS) for each in (data, longer))
    return one.tobytes() != other.tobytes()


def _simplejpeg(data: bytes, image: Image.Image, factor: int) -> np.ndarray | None:
    # The same pixels as Pillow's in less time; what is not quite in order is left to Pillow.
    try:
        from simplejpeg import decode_jpeg

        height, width = (-(-side // factor) for side in (image.height, image.width))
        # Four bytes a pixel are shrunk in less time than three, to the same numbers.
        space = _space(height * width * 4)
        return decode_jpeg(data, "RGBX", min_height=height, min_width=width, buffer=space)
    except (ImportError, ValueError):
        return None


_KEPT = threading.local()


def _space(size: int) -> np.ndarray | None:
    # Fresh memory for every photo costs a third of decoding it; each thread keeps its own.
    import numpy as np

    if size > 3 << 24:  # more than 12 megapixels
        return None
    if len(getattr(_KEPT, "space", ())) < size:
        _KEPT.space = np.empty(size, dtype=np.uint8)
    return _KEPT.space


def _squeezed(pixels: np.ndarray, size: int) -> Tensor:
    stored = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)
    return F.interpolate(stored, (size, size), mode="bilinear", antialias=True)[0, :3]


def traits(root: Path | None, cell: Cell) -> list[str]:
    """Say what of an image is put right when it is decoded, from its header alone.

    Raises DataError as `decode` does.

    >>> from PIL import Image
    >>> traits(None, Image.new("CMYK", (2, 2)))
    ['CMYK']
    """
    with _read(root, cell) as (image, _):
        return [name for name, holds in TRAITS.items() if holds(image)]


def _rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode in {"F", "I"}:
        raise ValueError("its 32-bit pixels say nothing of their scale")
    if image.mode.startswith("I;16"):
        image = image.convert("I").point(lambda grey: grey / 257).convert("L")
    image = _srgb(image)
    if image.has_transparency_data:
        coat = image.convert("RGBA")
        paper = Image.new("RGBA", coat.size, "white")
        return Image.alpha_composite(paper, coat).convert("RGB")
    return image.convert("RGB")


def _srgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    profile = _profile(image)
    if not profile or image.mode not in {"RGB", "CMYK"}:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, source, target, outputMode="RGB") or image
    except (ImageCms.PyCMSError, OSError):
        return image  # a profile that cannot be read leaves the colours as they are stored


def _profile(image: Image.Image) -> bytes | None:
    profile: bytes | None = image.info.get("icc_profile")
    known = profile and (b"sRGB" in profile or "sRGB".encode("utf-16-be") in profile)
    return None if known else profile


TRAITS: Mapping[str, Callable[[Image.Image], bool]] = {
    "turned or mirrored by its camera": lambda image: image.getexif().get(ORIENTATION, 1) in TURNS,
    "CMYK": lambda image: image.mode == "CMYK",
    "16-bit grey": lambda image: image.mode.startswith("I;16"),
    "with a palette": lambda image: image.mode in {"P", "PA"},
    "transparent": lambda image: image.has_transparency_data,
    "with a colour profile": lambda image: bool(_profile(image)),
    "an animation": lambda image: getattr(image, "is_animated", False),
}
"""What of an image does not stay as it is stored, and how to tell."""


def version() -> str:
    """Name the libraries that decide about pixels, for what is kept of them."""
    import PIL

    return f"Pillow {PIL.__version__}, torch {torch.__version__}"
