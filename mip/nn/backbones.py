"""Backbones by name: modules from photos to features, and the weights that others trained."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch.nn.functional as F
from attrs import frozen
from torch import Tensor, nn

from mip.errors import DataError, SpecError, hint
from mip.rng import seeded

OWN = ("conv", "small")
"""The backbones that are no library's."""


TIMM = "timm/"
"""What the names of timm's backbones begin with."""


def fault(name: str) -> str:
    """Say what is wrong with the name of a backbone; nothing if one is called so.

    >>> fault("small"), fault("resnet18"), fault("resnet81")[:48]
    ('', '', "is not a backbone; did you mean 'resnet18'? (kno")
    """
    if name in OWN:
        return ""
    try:
        known = library(name).names()
    except ImportError:
        return "needs timm: pip install 'mixed-input-pipelines[timm]'"
    return "" if name in known else f"is not a backbone{hint(name, known)}"


def library(name: str) -> Torchvision | Timm:
    """Give the backbone of this name as its library's.

    >>> library("resnet18"), library("timm/resnet18")
    (Torchvision(name='resnet18'), Timm(name='timm/resnet18'))
    """
    return Timm(name) if name.startswith(TIMM) else Torchvision(name)


@frozen
class Torchvision:
    """A classification model of torchvision's."""

    name: str

    def names(self) -> list[str]:
        """List the names that could stand here, the library's and our own."""
        import torchvision

        return [*OWN, *torchvision.models.list_models(module=torchvision.models)]

    def normal(self, weights: str) -> tuple[list[float], list[float]]:
        """Give mean and standard deviation, by channel, of the pixels that the weights expect.

        Raises DataError for weights that there are not.
        """
        preset = self._weights(weights).transforms()
        return list(preset.mean), list(preset.std)

    def model(self, weights: str | None, size: int, whole: bool) -> nn.Module:
        """Build the untrained model, `whole` or without its last linear layer."""
        import torchvision

        # These two would otherwise give a second output in training, and warn of their start.
        odd = self.name in {"googlenet", "inception_v3"}
        extra = {"aux_logits": False, "init_weights": True} if odd else {}
        model = torchvision.models.get_model(self.name, weights=None, **extra)
        return model if whole else cut(model)

    def trained(self, weights: str, size: int) -> dict[str, Tensor]:
        """Give the whole model's tensors (torchvision's own cache and download)."""
        return self._weights(weights).get_state_dict(check_hash=True)

    def _weights(self, name: str) -> Any:
        import torchvision

        known = torchvision.models.get_model_weights(self.name)
        if name not in {*known.__members__, "DEFAULT"}:
            raise DataError(f"{self.name} has no weights '{name}'{hint(name, known.__members__)}")
        return known[name] if name != "DEFAULT" else known.DEFAULT


@frozen
class Timm:
    """A model of timm's, by its name behind "timm/"; weights are its tags."""

    name: str

    def names(self) -> list[str]:
        """List the names that could stand here; raises ImportError without timm."""
        import timm

        return [TIMM + name for name in timm.list_models()]

    def normal(self, weights: str) -> tuple[list[float], list[float]]:
        """Give mean and standard deviation, by channel, of the pixels that the weights expect.

        Raises DataError for weights that there are not.
        """
        import timm

        known = self._tags()
        if weights not in known:
            raise DataError(f"{self.name} has no weights '{weights}'{hint(weights, known)}")
        preset: Any = timm.get_pretrained_cfg(self._tagged(weights))
        return list(preset.mean), list(preset.std)

    def model(self, weights: str | None, size: int, whole: bool) -> nn.Module:
        """Build the untrained model, `whole` or without its classifier; timm loads nothing here."""
        return self._created(weights, size, {} if whole else {"num_classes": 0})

    def trained(self, weights: str, size: int) -> dict[str, Tensor]:
        """Give the whole model's tensors (the cache and download of the Hugging Face hub).

        Those that belong to a place of the image are fitted to its size, as timm does it.
        """
        # A model with as many classes as the weights have is the one that timm loads strictly.
        with seeded(0):  # what is drawn here is overwritten
            return self._created(weights, size, {"pretrained": True}).state_dict()

    def _created(self, weights: str | None, size: int, how: dict[str, Any]) -> nn.Module:
        import timm

        name = self._tagged(weights)
        # Transformers are made for one size; the others take any, and no such argument.
        about = timm.get_pretrained_cfg(name)
        sized: dict[str, Any] = {"img_size": size} if about and about.fixed_input_size else {}
        return timm.create_model(name, **sized, **how)

    def _tagged(self, weights: str | None) -> str:
        name = self.name.removeprefix(TIMM)
        return name if weights in {None, "DEFAULT"} else f"{name}.{weights}"

    def _tags(self) -> list[str]:
        import timm

        name = self.name.removeprefix(TIMM)
        tags = [each.partition(".")[2] for each in timm.list_pretrained(name)]
        return ["DEFAULT", *filter(None, tags)] if tags else []


class Block(nn.Module):
    """A residual block of two 3x3 convolutions (He et al. 2016, basic block)."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.second = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.skip = nn.Conv2d(width, out, 1, bias=False)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.first(x)))
        # A strided 1x1 convolution would do, but oneDNN's gradient of one with few channels, in
        # channels-last memory, writes out of bounds: wrong numbers on some CPUs, crashes on others.
        coarse = F.avg_pool2d(x, 1, self.stride) if self.stride > 1 else x
        return F.relu(self.norm2(self.second(inner)) + self.skip(coarse))


class SmallResNet(nn.Sequential):
    """A residual net for a few hundred to some ten thousand small images.

    Takes float32 [n, 3, h, w]; gives float32 [n, 4 * width].

    >>> import torch
    >>> SmallResNet(8)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 32])
    """

    def __init__(self, width: int) -> None:
        stem = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        blocks = [
            Block(width, width, 1),
            Block(width, 2 * width, 2),
            Block(2 * width, 4 * width, 2),
        ]
        rest = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        super().__init__(stem, nn.BatchNorm2d(width), nn.ReLU(), *blocks, *rest)


class ConvStack(nn.Sequential):
    """Convolutions of 3x3 and stride 2 with ReLU, then the average over the image.

    Takes float32 [n, 3, h, w]; gives float32 [n, last of the channels].

    >>> import torch
    >>> ConvStack([5, 7, 10, 14])(torch.zeros(2, 3, 256, 256)).shape
    torch.Size([2, 14])
    """

    def __init__(self, channels: Sequence[int]) -> None:
        widths = zip((3, *channels), channels, strict=False)
        blocks = [(nn.Conv2d(width, out, 3, 2, padding=1), nn.ReLU()) for width, out in widths]
        rest = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        super().__init__(*[layer for block in blocks for layer in block], *rest)


def cut(model: nn.Module) -> nn.Module:
    """Take the last linear layer off a classification model, so that it gives features.

    >>> import torch
    >>> cut(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 10)))(torch.zeros(1, 4)).shape
    torch.Size([1, 3])
    """
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if linear:
        parent, _, name = linear[-1].rpartition(".")
        setattr(model.get_submodule(parent), name, nn.Identity())
    return model


class Cut(nn.Module):
    """A model up to one of its modules, what that gives averaged over the image or its patches.

    Raises SpecError for a module that is none of the model's, or that the model cannot be cut at.

    >>> import torch, torchvision
    >>> Cut(torchvision.models.resnet18(), "layer2")(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 128])
    """

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        known = [path for path, _ in model.named_modules() if path]
        if name not in known:
            raise SpecError(
                f"feature_layer = '{name}' is not a module of the backbone{hint(name, known)}"
            )
        # Swins hold the channels last, as do some more of timm's, which say so.
        said = getattr(model, "output_fmt", "") == "NHWC"
        self.last = said or type(model).__name__.startswith("Swin")
        try:
            self.cut = _followed(model, name)
        except Exception as error:  # whatever the code of a model does to one who follows it
            why = f"{type(error).__name__}: {str(error).partition('. ')[0]}"
            raise SpecError(
                f"feature_layer = '{name}': the backbone cannot be cut there: {why}"
            ) from error

    def forward(self, images: Tensor) -> Tensor:
        features = self.cut(images)["features"]
        if features.dim() == 4:
            return features.mean((1, 2) if self._channels_last(features) else (2, 3))
        return features.mean(1) if features.dim() == 3 else features

    def _channels_last(self, features: Tensor) -> bool:
        # Images are square, so two dimensions that are equal are theirs, wherever they stand; the
        # model is asked where this says nothing, for inside one the order may change.
        _, first, second, third = features.shape
        return first == second if (first == second) != (second == third) else self.last


def _followed(model: nn.Module, name: str) -> nn.Module:
    # timm's own knows which of its modules are not to be looked into.
    theirs = type(model).__module__.startswith("timm.")
    library = "timm.models" if theirs else "torchvision.models.feature_extraction"
    extract = import_module(library).create_feature_extractor
    with warnings.catch_warnings():
        # A module gives what it gives in both modes, whatever else the graphs of the two hold.
        warnings.filterwarnings("ignore", "NOTE: The nodes obtained by tracing")
        return extract(model, {name: "features"})


def frozen_modules(backbone: nn.Module, until: str | None) -> tuple[nn.Module, ...]:
    """Freeze the parameters of a backbone up to a module, or "all"; give the modules that have
    parameters and only frozen ones.

    Raises SpecError for a module that is none of the backbone's.
    """
    known = [path for path, _ in backbone.named_modules() if path]
    if until is None:
        return ()
    if until != "all" and until not in known:
        raise SpecError(f"freeze = '{until}' is not a module of the backbone{hint(until, known)}")
    paths = [path for path, _ in backbone.named_parameters()]
    inside = [until == "all" or path.startswith(f"{until}.") for path in paths]
    last = max((k for k, held in enumerate(inside) if held), default=-1)
    for path in paths[: last + 1]:
        backbone.get_parameter(path).requires_grad_(False)
    return tuple(module for module in backbone.modules() if _is_frozen(module))


def _is_frozen(module: nn.Module) -> bool:
    asked = [param.requires_grad for param in module.parameters()]
    return bool(asked) and not any(asked)
