"""Decoding: from a cell of a table to pixels.

To add a faster decoder: write a function like `_decode_simplejpeg`, which returns None for images
that it leaves to Pillow, call it in `_decode_pixels`, and name its version in `decoder_version`. To
add a format: list it in `FORMATS`, and its suffixes in `IMAGE_SUFFIXES` of
`mip/data/cells.py`; one that an extra package decodes must be registered with
Pillow first, because Pillow fails for every image if it does not know a format of the list.
"""

from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from toolz import identity
from torch import Tensor

from mip.data import PhotoName, Table, as_array, as_photo, spread_evenly
from mip.errors import DataError
from mip.images.greys import (
    NoScaleError,
    depth,
    extremes,
    guess_value_range,
    scale_greys,
)
from mip.images.photo_files import find_photo, photos_of, printable, read_photo

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


Cell = Any
"""A path, a file's bytes, a dict with either, a PIL image, or pixels uint8 [h, w] or [h, w, 3]."""


FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP")
"""The only formats that are ever tried, whatever the file's ending, as far as Pillow knows them:
HEIF with the extra `heif`, AVIF from Pillow 11.3 on.
"""


HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""What stands in bytes 8 to 12 of a HEIF file, behind "ftyp"."""


MAX_PIXELS = 89_478_485
"""Larger images are refused before decoding; Pillow warns from this size on."""


JPEGS = ("JPEG", "MPO")
"""Pillow's names of JPEGs; the second kind has more pictures after the first."""


MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""A marker that ends the coded pixels of a JPEG, which only restart markers do not."""


ENDS: Mapping[bytes, bytes] = {
    b"\0\0\0\x0cjP  ": b"\xff\xd9",  # JPEG 2000
    b"\xff\xd8\xff": b"\xff\xd9",
    b"\x89PNG\r\n\x1a\n": b"IEND\xaeB`\x82",
    b"GIF8": b"\x00;",
}
"""How files of a JPEG, a PNG and a GIF begin and end."""


END_BYTES = 32
"""The bytes at either end of a file in which these are looked for."""


ORIENTATION = 0x0112
"""The tag of EXIF."""


TRANSFORMS: Mapping[int, Callable[[Tensor], Tensor]] = {
    2: lambda pixels: pixels.flip(-1),
    3: lambda pixels: pixels.flip(-1, -2),
    4: lambda pixels: pixels.flip(-2),
    5: lambda pixels: pixels.mT,
    6: lambda pixels: pixels.mT.flip(-1),
    7: lambda pixels: pixels.mT.flip(-1, -2),
    8: lambda pixels: pixels.mT.flip(-2),
}
"""What puts an image upright that the camera stored with this EXIF orientation."""


def decode(
    root: Path | None,
    cell: Cell,
    size: int,
    scaled: bool = False,
    value_range: tuple[float, float] | None = None,
) -> Tensor:
    """Decode one image to uint8 [3, size, size], resized to a square (bilinear, antialiased).

    A cell is a path inside `root`, the bytes of a file, a dict {"bytes": …, "path": …} with either,
    a PIL image, or pixels uint8 [h, w] or [h, w, 3] (an array or a tensor). The camera's rotation
    is applied, colours are converted to sRGB, transparency is composed over white, greys of 16 and
    32 bits are scaled so that the values of `value_range` become black and white (by default 0 and
    65535), and animations give their first frame. With `scaled` a JPEG may be decoded at an eighth,
    a quarter or half of its size if that is still large enough: faster, with slightly different
    pixels. Raises DataError with the reason if the file is missing, truncated, not an image, or too
    large, and for greys of 32 bits without a range.

    >>> decode(None, torch.full((2, 4), 7, dtype=torch.uint8), 1).flatten().tolist()
    [7, 7, 7]
    """
    with _open(root, cell) as (image, data):
        factor = _scale_factor(image, size) if scaled else 1
        pixels = _decode_pixels(image, data, factor, value_range)
        upright = TRANSFORMS.get(image.getexif().get(ORIENTATION, 1), identity)
        # The four channels of simplejpeg are resized in less time than three, to the same numbers.
        stored = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)
        resized = F.interpolate(stored, (size, size), mode="bilinear", antialias=True)
        return upright(resized[0, :3]).contiguous()


@contextmanager
def _open(root: Path | None, cell: Cell) -> Iterator[tuple[Image.Image, Any]]:
    # Errors of whatever is done with the image name it, too.
    from PIL import Image, UnidentifiedImageError

    cell = as_photo(cell)
    cell = PhotoName(cell, root) if isinstance(cell, str) else cell
    name = printable(cell.text) if isinstance(cell, PhotoName) else "the image"
    try:
        data = read_photo(cell) if isinstance(cell, PhotoName) else cell
        with _to_pillow(data) as image:
            yield image, data
    except DataError:
        raise
    except NoScaleError as error:
        low, high = guess_value_range(*extremes(image))
        cure = f"value_range says which values are black and white, such as [{low:g}, {high:g}]"
        raise DataError(f"{name} has pixels of 32 bits: {cure}") from error
    except UnidentifiedImageError as error:
        if isinstance(data, bytes) and data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS:
            cure = "pip install 'mixed-input-pipelines[heif]'"
            raise DataError(f"{name} is HEIC, which the extra heif reads: {cure}") from error
        raise DataError(f"{name} is not an image ({', '.join(known_formats())})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{name} has more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # decoders may raise anything for a broken file
        text = " ".join(str(error).split())
        reason = "truncated" if "truncated" in text.lower() else f"broken ({text})"
        raise DataError(f"{name} is {reason}") from error


@cache
def known_formats() -> tuple[str, ...]:
    """Return those of `FORMATS` that can be read here."""
    from PIL import Image

    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _to_pillow(data: Any) -> Image.Image:
    from PIL import Image

    if isinstance(data, Image.Image):
        return data.copy()
    is_file = isinstance(data, bytes)
    image = Image.open(io.BytesIO(data), formats=known_formats()) if is_file else _from_pixels(data)
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError
    return image


def _from_pixels(data: Any) -> Image.Image:
    import numpy as np
    from PIL import Image

    pixels = as_array(data)
    if pixels.dtype != np.uint8 or pixels.ndim not in {2, 3} or pixels.shape[2:] not in {(), (3,)}:
        given = f"{type(data).__name__} of {pixels.dtype} {list(pixels.shape)}"
        cure = "; colours come last: permute(1, 2, 0)" if pixels.shape[:1] == (3,) else ""
        known = "a path, bytes, a PIL image, or uint8 [h, w] or [h, w, 3]"
        raise DataError(f"an image is {known}, not {given}{cure}")
    return Image.fromarray(pixels)


def _scale_factor(image: Image.Image, size: int) -> int:
    large_enough = (factor for factor in (8, 4, 2) if min(image.size) // factor >= size)
    return next(large_enough, 1) if image.format in JPEGS else 1


def _decode_pixels(
    image: Image.Image, data: Any, factor: int, value_range: tuple[float, float] | None
) -> np.ndarray:
    import numpy as np
    from PIL import ImageFile

    scan = image.fp.tell() if isinstance(image, ImageFile.ImageFile) and image.fp else 0
    simple = image.format in JPEGS and image.mode in {"RGB", "L"} and not _color_profile(image)
    pixels = _decode_simplejpeg(data, image, factor) if simple else None
    if pixels is None:
        if factor > 1:
            image.draft(None, (image.width // factor, image.height // factor))
        image.load()
    if scan and image.format == "JPEG":
        corner = (image.width - 1, image.height - 1)
        last = image.getpixel(corner) if pixels is None else pixels[-1, -1, :3]
        _check_complete(data, scan, last)
    if pixels is not None:
        return pixels
    return np.array(_to_rgb(scale_greys(image, value_range) if depth(image) else image))


def _check_complete(data: bytes, scan: int, last: Any) -> None:
    # libjpeg silently fills the missing end of a photo with mid grey.
    import numpy as np

    is_grey = set(np.ravel(last).tolist()) <= {127, 128}
    if data.rfind(b"\xff\xd9", scan) < 0 or (is_grey and _wants_more(data, scan)):
        raise ValueError("truncated")


def _wants_more(data: bytes, scan: int) -> bool:
    # Bytes inserted before the marker are ignored, unless pixels are missing.
    from PIL import Image

    marker = MARKER.search(data, scan)
    end = marker.start() if marker else len(data)
    longer = data[:end] + bytes(range(1, 255)) + data[end:]
    before, after = (
        Image.open(io.BytesIO(file), formats=known_formats()) for file in (data, longer)
    )
    return before.tobytes() != after.tobytes()


def _decode_simplejpeg(data: bytes, image: Image.Image, factor: int) -> np.ndarray | None:
    # The same pixels as Pillow's in less time; files with defects are left to Pillow.
    try:
        from simplejpeg import decode_jpeg

        height, width = (-(-side // factor) for side in (image.height, image.width))
        buffer = _buffer(height * width * 4)
        return decode_jpeg(data, "RGBX", min_height=height, min_width=width, buffer=buffer)
    except (ImportError, ValueError):
        return None


_BUFFERS = threading.local()


def _buffer(size: int) -> np.ndarray | None:
    # Fresh memory for every photo costs a third of decoding it; each thread has its own buffer.
    import numpy as np

    if size > 3 << 24:  # more than 12 megapixels
        return None
    if len(getattr(_BUFFERS, "buffer", ())) < size:
        _BUFFERS.buffer = np.empty(size, dtype=np.uint8)
    return _BUFFERS.buffer


def check_photo(root: Path | None, cell: Cell) -> None:
    """Raise DataError as `decode` does for a photo that is missing, is no image or ends too early.

    Of a file that begins and ends as its format says, only these bytes are read, a small part of
    the time of decoding it; damage between them, and the missing end of a TIFF, are found when it
    is decoded.

    >>> check_photo(None, b"GIF89a and no more")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    mip.errors.DataError: the image is not an image (AVIF, BMP, ...)
    """
    cell = as_photo(cell)
    cell = PhotoName(cell, root) if isinstance(cell, str) else cell
    if isinstance(cell, PhotoName):
        path = find_photo(cell)
        with suppress(OSError), path.open("rb") as file:  # `decode` says what is wrong
            start, size = file.read(END_BYTES), os.fstat(file.fileno()).st_size
            file.seek(max(size - END_BYTES, 0))
            if _has_both_ends(start, file.read(), size):
                return
    elif not isinstance(cell, bytes) or _has_both_ends(cell, cell[-END_BYTES:], len(cell)):
        return
    decode(root, cell, 8, scaled=True)


def _has_both_ends(start: bytes, end: bytes, size: int) -> bool:
    # Without an end mark there is a length, or in a TIFF the place of its directory. A JPEG with
    # something behind it, such as a second picture, has no mark at its end: it is decoded.
    if start.startswith(b"RIFF"):
        return int.from_bytes(start[4:8], "little") + 8 <= size
    if start.startswith(b"BM"):
        return int.from_bytes(start[2:6], "little") <= size
    if start.startswith((b"II*\0", b"MM\0*")):
        return int.from_bytes(start[4:8], "little" if start[:1] == b"I" else "big") + 2 <= size
    return any(start.startswith(first) and last in end for first, last in ENDS.items())


def photo_conversions(root: Path | None, cell: Cell) -> list[str]:
    """Name what `decode` changes in an image, from its header alone.

    Raises DataError as `decode` does.

    >>> from PIL import Image
    >>> photo_conversions(None, Image.new("CMYK", (2, 2)))
    ['CMYK']
    """
    with _open(root, cell) as (image, _):
        return [name for name, applies in CONVERSIONS.items() if applies(image)]


def find_deep_greys(
    table: Table, columns: Sequence[str], n_rows: int
) -> dict[str, tuple[float, float]]:
    """Find the smallest and the largest grey by the depth of photos ("16-bit"), of those with 16 or
    32 bits, in some rows. Of other photos only the headers are read; those that cannot be read are
    left out.

    >>> from PIL import Image
    >>> from mip.data import from_columns
    >>> scans = [Image.new("I;16", (2, 2), grey) for grey in (450, 7)]
    >>> find_deep_greys(from_columns({"scan": [*scans, Image.new("L", (2, 2))]}), ["scan"], 50)
    {'16-bit': (7.0, 450.0)}
    """
    rows = table.take(spread_evenly(len(table), n_rows))
    found: dict[str, tuple[float, float]] = {}
    for cell in chain.from_iterable(chain.from_iterable(photos_of(rows, c) for c in columns)):
        with suppress(DataError), _open(table.root, cell) as (image, _):
            if name := depth(image):
                low, high = extremes(image)
                least, most = found.get(name, (low, high))
                found[name] = min(least, low), max(most, high)
    return found


def _to_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    image = _to_srgb(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _to_srgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    profile = _color_profile(image)
    if not profile or image.mode not in {"RGB", "CMYK"}:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, source, target, outputMode="RGB") or image
    except (ImageCms.PyCMSError, OSError):
        return image  # colours stay as stored if the profile cannot be read


def _color_profile(image: Image.Image) -> bytes | None:
    profile: bytes | None = image.info.get("icc_profile")
    is_srgb = profile and (b"sRGB" in profile or "sRGB".encode("utf-16-be") in profile)
    return None if is_srgb else profile


CONVERSIONS: Mapping[str, Callable[[Image.Image], bool]] = {
    "turned or mirrored by its camera": lambda image: (
        image.getexif().get(ORIENTATION, 1) in TRANSFORMS
    ),
    "CMYK": lambda image: image.mode == "CMYK",
    "16-bit grey": lambda image: depth(image) == "16-bit",
    "32-bit grey": lambda image: depth(image).startswith("32-bit"),
    "with a palette": lambda image: image.mode in {"P", "PA"},
    "transparent": lambda image: image.has_transparency_data,
    "with a colour profile": lambda image: bool(_color_profile(image)),
    "an animation": lambda image: getattr(image, "is_animated", False),
}
"""The properties of stored images that `decode` changes, and how to recognize them."""


def decoder_version() -> str:
    """Return the versions of the libraries that determine pixels, and with them cached pixels."""
    import PIL

    return f"Pillow {PIL.__version__}, torch {torch.__version__}"
