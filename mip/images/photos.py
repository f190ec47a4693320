"""Encoded photos, as an image branch hands them to the stages of a pipe and to its module."""

from __future__ import annotations

from typing import TypedDict, TypeGuard

import torch
from torch import Tensor

from mip.tree import Tree


class Photos(TypedDict):
    """Encoded photos of n rows: pixels uint8 [n, k, 3, size, size] and present int8 [n, k], which
    is 1 for a photo, 0 for a missing one, and -1 past the end of a list of photos.

    Stages of a pipe know photos by these names and types (`is_photos`), for the example that a plan
    makes from the shapes in a model file is a plain dict too.
    """

    pixels: Tensor
    present: Tensor


def is_photos(inputs: Tree) -> TypeGuard[Photos]:
    """Tell whether inputs are encoded photos; inputs of these names but other types are not.

    >>> is_photos({"pixels": torch.zeros(2, 9), "present": torch.ones(2, 9)})
    False
    """
    if not isinstance(inputs, dict) or inputs.keys() != {"pixels", "present"}:
        return False
    pixels, present = inputs["pixels"], inputs["present"]
    if not (isinstance(pixels, Tensor) and isinstance(present, Tensor)):
        return False
    is_pixels = pixels.dtype == torch.uint8 and pixels.dim() == 5 and pixels.shape[2] == 3
    return is_pixels and present.dtype == torch.int8 and present.shape == pixels.shape[:2]
