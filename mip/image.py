"""Images: from a cell of a table to pixels, and the changes that training makes to them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from mip.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""The only decoders that are ever tried, whatever the file's ending says."""

MAX_PIXELS = 89_478_485
"""Larger images are refused before a pixel is decoded; from here on Pillow warns too."""


def locate(root: Path | None, cell: str) -> Path:
    """Find the file an image cell names, inside the table's folder.

    Raises DataError when the path is absolute, leaves the folder ('..', a link), holds a NUL
    or a backslash, or names no file.

    >>> locate(Path("."), "../secret.png")
    Traceback (most recent call last):
    mip.errors.DataError: ../secret.png leaves the table's folder
    """
    if "\0" in cell or "\\" in cell:
        raise DataError(f"{cell!r} has a character that no image path may have")
    try:
        return _inside((root or Path(".")).resolve(), cell)
    except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, no access
        raise DataError(f"{cell[:80]!r} cannot be looked up ({error})"[:200]) from error


def _inside(base: Path, cell: str) -> Path:
    path = base / cell
    if not path.resolve().is_relative_to(base) or Path(cell).is_absolute():
        raise DataError(f"{cell} leaves the table's folder")
    if not path.is_file():
        raise DataError(f"{cell} is missing")
    if not path.stat().st_size:
        raise DataError(f"{cell} is empty (0 bytes)")
    return path


def decode(root: Path | None, cell: str, size: int) -> Tensor:
    """Decode one image to uint8 [3, size, size], squeezed to a square (bilinear, antialiased).

    The camera's rotation is applied, colours are converted to sRGB, alpha is laid on white,
    16-bit greys are scaled, and of an animation the first frame counts. Raises DataError with
    the reason when the file is missing, truncated, no image, or too large.
    """
    from PIL import Image, UnidentifiedImageError

    path = locate(root, cell)
    try:
        return _pixels(path.read_bytes(), size)
    except UnidentifiedImageError as error:
        raise DataError(f"{cell} is not an image ({', '.join(FORMATS)})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{cell} has more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # Pillow's decoders raise whatever a broken file provokes
        reason = "truncated" if "truncated" in str(error).lower() else f"broken ({error})"
        raise DataError(f"{cell} is {reason}") from error


def _pixels(data: bytes, size: int) -> Tensor:
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        image.load()
        upright = _rgb(image).resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(upright)).permute(2, 0, 1).contiguous()


def _rgb(image: Image.Image) -> Image.Image:
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode in {"F", "I"}:
        raise ValueError("its 32-bit pixels say nothing of their scale")
    if upright.mode.startswith("I;16"):
        upright = upright.convert("I").point(lambda grey: grey / 257).convert("L")
    upright = _srgb(upright)
    if upright.has_transparency_data:
        coat = upright.convert("RGBA")
        paper = Image.new("RGBA", coat.size, "white")
        return Image.alpha_composite(paper, coat).convert("RGB")
    return upright.convert("RGB")


def _srgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    profile = image.info.get("icc_profile")
    if not profile or image.mode not in {"RGB", "CMYK"}:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, source, target, outputMode="RGB") or image
    except (ImageCms.PyCMSError, OSError):
        return image  # a profile that cannot be read leaves the colours as they are stored


def flip(pixels: Tensor, draw: Tensor, chance: float = 0.5) -> Tensor:
    """Mirror images left to right where the draw falls below the chance.

    Takes pixels [n, k, 3, h, w] and draws in [0, 1) as [n]; a row's images turn together.

    >>> row = torch.tensor([1, 2]).view(1, 1, 1, 1, 2)
    >>> flip(row, torch.tensor([0.2])).flatten().tolist()
    [2, 1]
    """
    mirrored = (draw < chance).view(-1, 1, 1, 1, 1)
    return torch.where(mirrored, pixels.flip(-1), pixels)


def shift(pixels: Tensor, draws: Tensor, reach: float) -> Tensor:
    """Move and scale images by up to `reach` of their size, the border repeated.

    Takes pixels uint8 [n, k, 3, h, w] and draws in [0, 1) as [n, 3] (across, down, scale).
    """
    n, k = pixels.shape[:2]
    across, down, zoom = ((draws * 2 - 1) * reach * 2).unbind(1)
    matrix = torch.zeros(n, 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 + zoom / 2
    matrix[:, 0, 2], matrix[:, 1, 2] = across, down
    flat = pixels.flatten(0, 1)
    grid = F.affine_grid(matrix.repeat_interleave(k, 0), list(flat.shape), align_corners=False)
    moved = F.grid_sample(flat.float(), grid, padding_mode="border", align_corners=False)
    return moved.round().to(torch.uint8).view_as(pixels)


def brighten(pixels: Tensor, draw: Tensor, reach: float) -> Tensor:
    """Multiply brightness by 1 ± `reach`; takes pixels uint8 [n, k, 3, h, w] and draws [n]."""
    factor = (1 + (draw * 2 - 1) * reach).view(-1, 1, 1, 1, 1)
    return (pixels.float() * factor).round().clamp(0, 255).to(torch.uint8)
