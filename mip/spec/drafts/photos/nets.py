"""Which pretrained net reads photos: one of a library, or the one that a file holds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from attrs import evolve, frozen

from mip import branches
from mip.errors import DataError, SpecError, hint
from mip.nn import BUILT_IN, LEVELS, TIMM, backbone_error, open_weights, source_of

DEFAULT_BACKBONE = "efficientnet_b0"
"""The net that is proposed: of those of torchvision that take less than 50 ms a photo on one core
of a CPU, it is the most accurate on ImageNet, and its weights are a file of 21 MB.
"""


@frozen
class PretrainedNet:
    """A backbone and its weights as a spec names them: `pretrained` is a name of the library's, or
    a path relative to the spec. `size`, `mean` and `std` are those of the photos that it was
    trained on; without the latter the library knows them. `why` says where it comes from.
    """

    backbone: str
    pretrained: str
    size: int
    why: str
    mean: Sequence[float] = ()
    std: Sequence[float] = ()

    def has_levels(self) -> bool:
        """Tell whether the features may be the backbone's `LEVELS`."""
        image = branches.Image(
            ("photo",), size=self.size, backbone=self.backbone, feature_layer=LEVELS
        )
        try:
            image.module({"mean": [0.0] * 3, "std": [1.0] * 3, "most": [1]})
        except SpecError:
            return False
        return True


def library_net(backbone: str | None = None, weights: str = "DEFAULT") -> PretrainedNet:
    """Return a net with a library's weights, which are looked up or downloaded when it is trained;
    by default the one that is proposed.

    Raises SpecError for a backbone that no library has, or whose library is not installed, and
    DataError for weights that it does not have.

    >>> library_net("resnet18").size
    224
    """
    backbone = backbone or DEFAULT_BACKBONE
    _check_backbone(backbone)
    if backbone in BUILT_IN:
        raise SpecError(f"--backbone {backbone}: has no weights but those of a file")
    source = source_of(backbone)
    source.normalization(weights)  # which checks the name
    path = source.cache_path(weights)
    where = "in" if path.is_file() else "which a fit downloads to"
    why = f"{backbone}, pretrained: its weights {weights}, {where} {path}"
    return PretrainedNet(backbone, weights, source.photo_size(weights), why)


def cached_net() -> PretrainedNet | None:
    """Return the net that is proposed, if its weights are in the cache of its library."""
    path = source_of(DEFAULT_BACKBONE).cache_path("DEFAULT")
    return library_net() if path.is_file() else None


def file_net(path: Path, written: str, backbone: str | None = None) -> PretrainedNet:
    """Return the net that a file of weights holds; `written` is its path for the spec. Which net it
    is, is said by `backbone`, or else by the file's name.

    Raises FileError for a file that is not there or cannot be read, SpecError for a name that is
    no backbone, and DataError if the file does not hold it.
    """
    with open_weights(path):  # before its name is asked which net it holds
        pass
    if backbone is not None:
        _check_backbone(backbone)
    names = [backbone] if backbone else backbones_named(path)
    errors = list[DataError]()
    for name in names:
        try:
            return _fitting(path, written, name)
        except DataError as error:
            errors.append(error)
    named = f"; it is named after {' and '.join(names)}: if it is another, --backbone NAME"
    raise DataError(f"{errors[0]}{'' if backbone else named}") from errors[0]


def backbones_named(path: Path) -> list[str]:
    """Return the backbones that the name of a file begins with: the longest name of torchvision's
    models, and the longest of timm's. Raises SpecError, with the nearest, if there is none.

    >>> backbones_named(Path("resnet18-f37072fd.pth"))[0]
    'resnet18'
    """
    name = re.sub(r"\.(safetensors|pt|pth|bin)$", "", path.name, flags=re.IGNORECASE)
    ends = [len(name), *(match.start() for match in re.finditer(r"[-_.]", name))]
    beginnings = [name[:end] for end in sorted(ends, reverse=True)]
    known = {name for name in source_of("").names() if name not in BUILT_IN}
    missing = ""
    try:
        known |= set(source_of(TIMM).names())
    except ImportError:
        missing = "; for one of timm's: pip install 'mixed-input-pipelines[timm]'"
    found = (next((p + b for b in beginnings if p + b in known), None) for p in ("", TIMM))
    if names := [each for each in found if each]:
        return names
    cure = f"say which with --backbone NAME{missing}"
    raise SpecError(f"{path}: is named after no backbone; {cure}{hint(name, known)}")


def _check_backbone(name: str) -> None:
    if error := backbone_error(name):
        raise SpecError(f"--backbone {name} {error}")


def _fitting(path: Path, written: str, backbone: str) -> PretrainedNet:
    """Return the net of this name, if a file holds its tensors."""
    image = branches.Image(("photo",), backbone=backbone, pretrained=str(path))
    if image.of_library:
        image = evolve(image, size=source_of(backbone).photo_size(None))
    mean, std = image.normalization()
    image.pretrain(image.module({"mean": mean, "std": std, "most": [1]}))
    why = f"{backbone}, pretrained: {path.name} holds its tensors"
    return PretrainedNet(backbone, written, image.size, why, mean, std)
