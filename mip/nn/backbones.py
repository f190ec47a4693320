"""Backbones by name: modules from photos to features, and their pretrained weights.

To add a source of backbones: write a class with the verbs of `Source` and let `source_of` return it
for the names that it knows.
"""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch
from attrs import frozen
from torch import Tensor, nn

from mip.errors import DataError, SpecError, hint
from mip.nn.convnets import GlobalPool, pool_map
from mip.rng import seeded

BUILT_IN = ("conv", "small")
"""The backbones of this library itself."""


IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
"""Mean and standard deviation of the pixels of ImageNet, from 0 to 1."""


TIMEOUT = 5.0
"""Seconds after which a server that does not answer counts as out of reach."""


OFFLINE = "HF_HUB_OFFLINE"
"""The environment variable by which the Hugging Face hub's library, and this one, leave the network
alone.
"""


TIMM = "timm/"
"""The prefix of the names of timm's backbones."""


def backbone_error(name: str) -> str:
    """Return what is wrong with the name of a backbone, or an empty text.

    >>> backbone_error("small"), backbone_error("resnet18"), backbone_error("resnet81")[:48]
    ('', '', "is not a backbone; did you mean 'resnet18'? (kno")
    """
    if name in BUILT_IN:
        return ""
    try:
        known = source_of(name).names()
    except ImportError:
        return "needs timm: pip install 'mixed-input-pipelines[timm]'"
    return "" if name in known else f"is not a backbone{hint(name, known)}"


class Source(Protocol):
    """A backbone of a library: how it is built, and what its pretrained weights are."""

    def names(self) -> list[str]:
        """List the names of the library's backbones, to check a name and to suggest one."""
        ...

    def normalization(self, weights: str | None) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation, by channel, of the pixels that weights expect;
        without weights, of those that the model's usual weights expect.

        Raises DataError for unknown weights.
        """
        ...

    def photo_size(self, weights: str | None) -> int:
        """Return the side in pixels of the images that weights were trained for, or without
        weights, the model's usual ones.
        """
        ...

    def cache_path(self, weights: str) -> Path:
        """Return the file in which the library keeps weights, whether it is there or not."""
        ...

    def build(self, weights: str | None, size: int, classifier: bool) -> nn.Module:
        """Build the model that takes these weights, untrained, with or without its classifier."""
        ...

    def state_dict(self, weights: str, size: int) -> dict[str, Tensor]:
        """Return pretrained weights of the whole model, from the library's cache or download."""
        ...

    def fitted(self, tensors: Mapping[str, Tensor], size: int) -> Mapping[str, Tensor]:
        """Fit the tensors of a file of weights to images of a size, where these depend on it."""
        ...


def check_online() -> None:
    """Raise DataError if `OFFLINE` forbids the network."""
    if os.environ.get(OFFLINE, "").upper() in {"1", "ON", "TRUE", "YES"}:
        raise DataError(f"--offline or {OFFLINE} forbids it")


def source_of(name: str) -> Source:
    """Return the source of the backbone of this name.

    >>> source_of("resnet18"), source_of("timm/resnet18")
    (Torchvision(name='resnet18'), Timm(name='timm/resnet18'))
    """
    return Timm(name) if name.startswith(TIMM) else Torchvision(name)


@frozen
class Torchvision:
    """A classification model of torchvision."""

    name: str

    def names(self) -> list[str]:
        """List the models of torchvision, and the built-in backbones, which have no prefix
        either.
        """
        import torchvision

        return [*BUILT_IN, *torchvision.models.list_models(module=torchvision.models)]

    def normalization(self, weights: str | None) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of the transforms that belong to the weights, or
        ImageNet's.
        """
        if weights is None:
            return IMAGENET
        preset = self._weights(weights).transforms()
        return list(preset.mean), list(preset.std)

    def photo_size(self, weights: str | None) -> int:
        """Return the size to which the transforms of the weights crop images."""
        return self._weights(weights or "DEFAULT").transforms().crop_size[0]

    def cache_path(self, weights: str) -> Path:
        """Return the file below $TORCH_HOME that torch keeps the weights in."""
        return _torch_cache(self._weights(weights).url)

    def build(self, weights: str | None, size: int, classifier: bool) -> nn.Module:
        """Build the model; without `classifier` its last linear layer is removed."""
        import torchvision

        # These two would otherwise return a second output in training, and warn of their init.
        inception = self.name in {"googlenet", "inception_v3"}
        options = {"aux_logits": False, "init_weights": True} if inception else {}
        model = torchvision.models.get_model(self.name, weights=None, **options)
        return model if classifier else without_classifier(model)

    def state_dict(self, weights: str, size: int) -> dict[str, Tensor]:
        """Return the weights, from torchvision's own cache or download."""
        with _socket_timeout(TIMEOUT):
            return self._weights(weights).get_state_dict(check_hash=True)

    def fitted(self, tensors: Mapping[str, Tensor], size: int) -> Mapping[str, Tensor]:
        """Return the tensors as they are."""
        return tensors

    def _weights(self, name: str) -> Any:
        import torchvision

        known = torchvision.models.get_model_weights(self.name)
        if name not in {*known.__members__, "DEFAULT"}:
            raise DataError(f"{self.name} has no weights '{name}'{hint(name, known.__members__)}")
        return known[name] if name != "DEFAULT" else known.DEFAULT


def _torch_cache(url: str) -> Path:
    return Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])


HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""The usual names of timm's weights on the Hugging Face hub."""


@frozen
class Timm:
    """A model of timm, by its name after "timm/"; weights are its tags."""

    name: str

    def names(self) -> list[str]:
        """List the models of timm. Raises ImportError if timm is not installed."""
        import timm

        return [TIMM + name for name in timm.list_models()]

    def normalization(self, weights: str | None) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of the configuration of the weights, or of the
        model.
        """
        import timm

        known = self._tags() if weights else []
        if weights and weights not in known:
            raise DataError(f"{self.name} has no weights '{weights}'{hint(weights, known)}")
        preset: Any = timm.get_pretrained_cfg(self._tagged(weights))
        return (list(preset.mean), list(preset.std)) if preset else IMAGENET

    def photo_size(self, weights: str | None) -> int:
        """Return the size of the configuration of the weights, or of the model."""
        import timm

        preset: Any = timm.get_pretrained_cfg(self._tagged(weights))
        return preset.input_size[-1]

    def cache_path(self, weights: str) -> Path:
        """Return the file in the cache of the Hugging Face hub, or for the few models that are not
        there in torch's; if the hub has none yet, the folder in which it will be.
        """
        import timm
        from huggingface_hub import constants, try_to_load_from_cache

        preset: Any = timm.get_pretrained_cfg(self._tagged(weights))
        if not preset.hf_hub_id:
            return _torch_cache(preset.url or f"{self._tagged(weights)}.pth")
        found = (try_to_load_from_cache(preset.hf_hub_id, name) for name in HUB_FILES)
        there = [Path(path) for path in found if isinstance(path, str)]
        folder = f"models--{preset.hf_hub_id.replace('/', '--')}"
        return there[0] if there else Path(constants.HF_HUB_CACHE, folder)

    def build(self, weights: str | None, size: int, classifier: bool) -> nn.Module:
        """Build the model; timm loads nothing here."""
        return self._create(weights, size, {} if classifier else {"num_classes": 0})

    def state_dict(self, weights: str, size: int) -> dict[str, Tensor]:
        """Return the weights, from the cache of the Hugging Face hub, which then is not asked, or
        by download. Those that belong to positions in the image are fitted to its size, as timm
        does it. If the cache has none and the hub does not answer, the error comes at once.
        """
        path, options = self.cache_path(weights), dict[str, Any](pretrained=True)
        if path.is_file():
            options["pretrained_cfg_overlay"] = {"file": str(path), "custom_load": False}
        else:
            self._ask_hub(weights)
        # timm loads strictly into a model with as many classes as the weights have.
        with seeded(0), _socket_timeout(TIMEOUT):  # whatever is drawn here is overwritten
            return self._create(weights, size, options).state_dict()

    def fitted(self, tensors: Mapping[str, Tensor], size: int) -> Mapping[str, Tensor]:
        """Fit the tensors of a file to images of a size, as timm does it: those of transformers
        that belong to positions.
        """
        model = self._create(None, size, {})
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        fits = all(shapes.get(name, each.shape) == each.shape for name, each in tensors.items())
        fit = getattr(import_module(type(model).__module__), "checkpoint_filter_fn", None)
        if fit and not fits:
            with suppress(Exception):  # of a file of another model, whose mistakes are named later
                return fit(dict(tensors), model)
        return tensors

    def _ask_hub(self, weights: str | None) -> None:
        # The hub's library repeats a download that fails for 25 s, and timm has it do so for two
        # files; a request without a download fails after one attempt.
        import timm
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.errors import HfHubHTTPError

        preset: Any = timm.get_pretrained_cfg(self._tagged(weights))
        if preset.hf_hub_id:
            with suppress(HfHubHTTPError):  # an answer
                url = hf_hub_url(preset.hf_hub_id, "config.json")
                get_hf_file_metadata(url, timeout=TIMEOUT)

    def _create(self, weights: str | None, size: int, options: dict[str, Any]) -> nn.Module:
        import timm

        name = self._tagged(weights)
        # Transformers are built for one size; other models take any, and have no such argument.
        preset = timm.get_pretrained_cfg(name)
        sized: dict[str, Any] = {"img_size": size} if preset and preset.fixed_input_size else {}
        return timm.create_model(name, **sized, **options)

    def _tagged(self, weights: str | None) -> str:
        name = self.name.removeprefix(TIMM)
        return name if weights in {None, "DEFAULT"} else f"{name}.{weights}"

    def _tags(self) -> list[str]:
        import timm

        name = self.name.removeprefix(TIMM)
        tags = [tagged.partition(".")[2] for tagged in timm.list_pretrained(name)]
        return ["DEFAULT", *filter(None, tags)] if tags else []


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    # The libraries set no timeout of their own, and a network that drops packets never answers.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def without_classifier(model: nn.Module) -> nn.Module:
    """Replace the last linear layer of a classification model, so that it returns features.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 10))
    >>> without_classifier(model)(torch.zeros(1, 4)).shape
    torch.Size([1, 3])
    """
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if linear:
        parent, _, name = linear[-1].rpartition(".")
        setattr(model.get_submodule(parent), name, nn.Identity())
    return model


class FeatureExtractor(nn.Module):
    """A model up to one of its modules, whose output is pooled over the image or its patches; for
    the pool "none" it is the map, [n, c, h, w], or the vectors of all patches side by side.

    Raises SpecError for a module that the model does not have, or that cannot be its end.

    >>> import torch, torchvision
    >>> FeatureExtractor(torchvision.models.resnet18(), "layer2")(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 128])
    """

    def __init__(self, model: nn.Module, layer: str, global_pool: GlobalPool = "avg") -> None:
        super().__init__()
        self.global_pool = global_pool
        known = [path for path, _ in model.named_modules() if path]
        if layer not in known:
            why = f"is not a module of the backbone{hint(layer, [LEVELS, *known])}"
            raise SpecError(f"feature_layer = '{layer}' {why}")
        # Swin transformers have channels last, as have some models of timm, which declare it.
        declared = getattr(model, "output_fmt", "") == "NHWC"
        self.channels_last = declared or type(model).__name__.startswith("Swin")
        text = f"feature_layer = '{layer}': the backbone cannot be cut there"
        # `cut` is part of the names of parameters in files.
        self.cut = _extractor(model, [layer], text)

    def forward(self, images: Tensor) -> Tensor:
        features = self.cut(images)["0"]
        if features.dim() == 4 and self._has_channels_last(features):
            features = pool_map(features, self.global_pool, (1, 2))
            return features.permute(0, 3, 1, 2) if features.dim() == 4 else features
        if features.dim() == 3:
            return pool_map(features, self.global_pool, (1,)).flatten(1)
        return pool_map(features, self.global_pool)

    def _has_channels_last(self, features: Tensor) -> bool:
        # Images are square, so two equal lengths are theirs, wherever they are. If that is
        # ambiguous the model decides, whose order may differ between its modules.
        _, first, second, third = features.shape
        if (first == second) == (second == third):
            return self.channels_last
        return first == second


LEVELS = "levels"
"""The `feature_layer` of an image branch that stands for maps at several depths."""


NUM_LEVELS = 4
"""The number of depths at which `LevelFeatures` reads a model's maps."""


class LevelFeatures(nn.Module):
    """The means and maxima of a model's feature maps at the last `NUM_LEVELS` of its resolutions,
    of 2 x 2 and finer, side by side: float32 [n, 3, h, w] to [n, 2 * channels of all of them].

    Early maps hold textures and edges that the last one has lost. Raises SpecError for a model with
    maps of fewer than two resolutions, such as a plain vision transformer, and for one that cannot
    be traced.

    >>> import torch, torchvision
    >>> LevelFeatures(torchvision.models.resnet18(), 64)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 1920])
    """

    def __init__(self, model: nn.Module, size: int) -> None:
        super().__init__()
        layers = _last_of_resolutions(model, size)[-NUM_LEVELS:]
        if len(layers) < 2:
            text = (
                f"feature_layer = '{LEVELS}' needs a backbone with maps of two resolutions or more"
            )
            raise SpecError(f"{text}, and at size {size} it has {len(layers)}")
        text = f"feature_layer = '{LEVELS}': the backbone cannot be traced"
        # `cut` is part of the names of parameters in files.
        self.cut = _extractor(model, layers, text)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.cut(images).values()
        pooled = [each for level in maps for each in _mean_and_max(level)]
        return torch.cat(pooled, dim=1)


def _mean_and_max(level: Tensor) -> tuple[Tensor, Tensor]:
    dims = (2, 3) if _resolution(level.shape, 2) else (1, 2)
    return level.mean(dims), level.amax(dims)


def _resolution(shape: Sequence[int], first: int) -> int:
    """Return the length of a square map whose sides are the dimensions `first` and the next; 0 for
    any other.
    """
    is_square = len(shape) == 4 and shape[first] == shape[first + 1]
    return shape[first] if is_square else 0


@torch.no_grad()
def _last_of_resolutions(model: nn.Module, size: int) -> list[str]:
    """Return the paths of the modules that compute the last map of each resolution, in order: of
    whole stages and blocks, not of what is inside them.
    """
    last = dict[int, str]()

    def note(path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            side = _resolution(output.shape, 2) or _resolution(output.shape, 1)
            if 1 < side < size:
                last[side] = path

    blocks = [
        (path, module)
        for path, module in model.named_modules()
        if path and path.count(".") < 2 and not isinstance(module, nn.AdaptiveAvgPool2d)
    ]
    hooks = [module.register_forward_hook(partial(note, path)) for path, module in blocks]
    training = model.training
    try:
        model.eval()(torch.zeros(1, 3, size, size))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return [last[side] for side in sorted(last, reverse=True)]


def inner_model(backbone: nn.Module) -> nn.Module:
    """Return the model that a backbone computes features with: itself, or what it was cut from."""
    return backbone.cut if isinstance(backbone, (FeatureExtractor, LevelFeatures)) else backbone


def _extractor(model: nn.Module, layers: Sequence[str], cannot: str) -> nn.Module:
    """Cut a model to what it computes in some of its modules, as a dict from "0" on. Raises
    SpecError, whose text begins with `cannot`, for a model that cannot be traced.
    """
    # timm's own function knows which of its modules cannot be traced.
    is_timm = type(model).__module__.startswith("timm.")
    library = "timm.models" if is_timm else "torchvision.models.feature_extraction"
    extract = import_module(library).create_feature_extractor
    with warnings.catch_warnings():
        # It warns if other parts of the graph differ between training and evaluation.
        warnings.filterwarnings("ignore", "NOTE: The nodes obtained by tracing")
        try:
            return extract(model, {layer: str(k) for k, layer in enumerate(layers)})
        except Exception as error:  # tracing runs the model's code, which may raise anything
            why = f"{type(error).__name__}: {str(error).partition('. ')[0]}"
            raise SpecError(f"{cannot}: {why}") from error


def freeze_until(backbone: nn.Module, until: str | None) -> tuple[nn.Module, ...]:
    """Freeze the parameters of a backbone up to a module, or "all"; return the modules that have
    parameters, all of them frozen.

    Raises SpecError for a module that the backbone does not have.
    """
    known = [path for path, _ in backbone.named_modules() if path]
    if until is None:
        return ()
    if until != "all" and until not in known:
        raise SpecError(f"freeze = '{until}' is not a module of the backbone{hint(until, known)}")
    paths = [path for path, _ in backbone.named_parameters()]
    inside = [until == "all" or path.startswith(f"{until}.") for path in paths]
    last = max((k for k, is_inside in enumerate(inside) if is_inside), default=-1)
    for path in paths[: last + 1]:
        backbone.get_parameter(path).requires_grad_(False)
    return tuple(module for module in backbone.modules() if _is_frozen(module))


def _is_frozen(module: nn.Module) -> bool:
    trainable = [param.requires_grad for param in module.parameters()]
    return bool(trainable) and not any(trainable)
