"""Features of photos: what the frozen part of a backbone computes of them, which is the same in
every epoch: the vectors behind all of it, or maps in its midst.

An image branch with a frozen part is replaced by one of these while rows are encoded for training
and scoring; its module takes the features in the place of pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import torch
from attrs import frozen
from torch import Tensor, nn

from mip.branches.photo_net import PhotoNet
from mip.branches.protocol import Facts
from mip.data import Rows, Table
from mip.images import CachedRows, LazyRows, Photos, open_cache
from mip.rng import derive, uniform

if TYPE_CHECKING:
    from mip.branches.image import Image

VIEWS = 4
"""The augmented views of a photo that are kept; each epoch draws one of them."""


AT_ONCE = {"cpu": 8, "cuda": 256}
"""Photos that run through a backbone together: on a CPU few, so that its maps stay in the cache."""


class Features(TypedDict):
    """Features of the photos of n rows, float32 [n, k, …], or of their views [n, views, k, …]; and
    `present` as in `Photos`.
    """

    features: Tensor
    present: Tensor


@frozen(eq=False)
class PhotoFeatures:
    """An image branch that encodes rows to the features of their photos: those of the photos as
    they are, or of a view of them for each key of `views`.

    They are kept in `folder`, if there is one, and computed once. `net` is the branch's module, a
    copy that nobody trains; `shape` is that of a photo's features, and `digest` that of what
    computes them.
    """

    kind = "photo_features"
    image: Image
    net: PhotoNet
    shape: torch.Size
    digest: str
    views: tuple[int, ...] = ()
    folder: Path | None = None

    def adapt(self, table: Rows) -> Facts:
        """Return the facts of the image branch."""
        return self.image.adapt(table)

    def module(self, facts: Facts) -> nn.Module:
        """Build the module of the image branch, which takes features too."""
        return self.image.module(facts)

    def absent(self, inputs: Features) -> Tensor:
        """Mark the rows without any photo: bool [n]."""
        return (inputs["present"] != 1).all(dim=1)

    def encode(self, facts: Facts, table: Table) -> Features:
        """Return the features, those in the folder as they are. Raises DataError as the image
        branch does for a photo that cannot be read.
        """
        if self.folder is None or not len(table):
            return self._compute(facts, table)
        return self.cache(facts, table, self.folder).take(torch.arange(len(table)))

    def cache(self, facts: Facts, table: Table, folder: Path) -> CachedRows | LazyRows:
        """Return the features as rows of a file in the folder, each computed when first taken; if
        there is no space for the file, as rows that are computed whenever they are taken.
        """
        compute, k = partial(self._compute, facts), sum(facts["most"])
        views = (len(self.views),) if self.views else ()
        cached = open_cache(
            table,
            columns=self.image.columns,
            encode=compute,
            shapes={
                # First, because numbers of four bytes begin at multiples of four.
                "features": (torch.float32, (*views, k, *self.shape)),
                "present": (torch.int8, (k,)),
            },
            key=(*self.image.cache_key(facts), self.digest, self.views, self._augmentation()),
            folder=self.folder or folder,
        )
        return cached or LazyRows(table, compute)

    def _augmentation(self) -> str:
        return repr(self.image.augmentation) if self.views else ""

    def _compute(self, facts: Facts, table: Table) -> Features:
        photos = self.image.encode(facts, table)
        if not self.views:
            return {"features": self._run(photos), "present": photos["present"]}
        row_ids = torch.tensor(table.row_ids)
        views = [self.image.augment(photos, key, row_ids) for key in self.views]
        features = torch.stack([self._run(view) for view in views], dim=1)
        return {"features": features, "present": photos["present"]}

    @torch.no_grad()
    def _run(self, photos: Photos) -> Tensor:
        pixels, (n, k) = photos["pixels"].flatten(0, 1), photos["present"].shape
        features = torch.zeros(n * k, *self.shape)
        device = self.net.mean.device
        is_there = (photos["present"] == 1).flatten()
        with _one_thread():
            for index in is_there.nonzero().flatten().split(AT_ONCE.get(device.type, 32)):
                features[index] = self.net.frozen_features(pixels[index].to(device)).cpu()
            if self.net.split and not is_there.all():
                # Black photos take part in the statistics of the batch norms that are trained.
                black = torch.zeros_like(pixels[:1], device=device)
                features[~is_there] = self.net.frozen_features(black).cpu()
        return features.view(n, k, *self.shape)


@contextmanager
def _one_thread() -> Iterator[None]:
    # The last bits of a convolution depend on the number of threads, on which a run must not. Rows
    # are encoded in several threads, each of which has one anyway.
    n_threads = torch.get_num_threads()
    if n_threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


@frozen(eq=False)
class ViewFeatures:
    """Features of several views of each photo, of which training draws one in each epoch."""

    kind = "view_features"
    views: PhotoFeatures

    def adapt(self, table: Rows) -> Facts:
        """Return the facts of the image branch."""
        return self.views.adapt(table)

    def module(self, facts: Facts) -> nn.Module:
        """Build the module of the image branch, which takes features too."""
        return self.views.module(facts)

    def absent(self, inputs: Features) -> Tensor:
        """Mark the rows without any photo: bool [n]."""
        return self.views.absent(inputs)

    def encode(self, facts: Facts, table: Table) -> Features:
        """Return the features of all views: float32 [n, views, k, …]."""
        return self.views.encode(facts, table)

    def cache(self, facts: Facts, table: Table, folder: Path) -> CachedRows | LazyRows:
        """Return the features of all views as rows of a file in the folder."""
        return self.views.cache(facts, table, folder)

    def augment(self, inputs: Features, key: int, row_ids: Tensor) -> Features:
        """Draw a view for each row: features [n, k, …]. Draws depend only on key and row id."""
        features, n_views = inputs["features"], len(self.views.views)
        draws = uniform(derive("view", key), row_ids, 1).flatten()
        chosen = (draws * n_views).long().clamp(max=n_views - 1)
        return {**inputs, "features": features[torch.arange(len(features)), chosen]}


def photo_features(
    image: Image, net: PhotoNet, augmented: bool, folder: Path | None
) -> Image | PhotoFeatures | ViewFeatures:
    """Make the branch that runs the frozen part of the backbone of `net` when it encodes rows, of
    `VIEWS` views of each photo if they are `augmented`; the branch itself if there is no such part,
    or the rest cannot be run without it.
    """
    photo = (torch.arange(3 * image.size**2) % 251).to(torch.uint8).view(1, 3, image.size, -1)
    photo = photo.to(net.mean.device)
    net = deepcopy(net).eval().requires_grad_(False)
    if not (net.has_frozen_backbone or net.can_split(photo)):
        return image
    net.channels_last = True  # without gradients that is as fast for all nets, and faster for most
    # The same views for every seed, so that runs with other seeds share them.
    views = [derive("view", number) for number in range(VIEWS if augmented else 0)]
    shape, digest = net.frozen_features(photo).shape[1:], backbone_digest(net, photo)
    features = PhotoFeatures(image, net, shape, digest, tuple(views), folder)
    return ViewFeatures(features) if augmented else features


@torch.no_grad()
def backbone_digest(net: PhotoNet, photo: Tensor) -> str:
    """Return a digest of all that decides about a photo's features: the tensors of the frozen part
    of the backbone, and what it makes of them, as three digits for one photo.
    """
    digest = hashlib.sha256()
    frozen = net.split[0] if net.split else net.backbone
    named = {**frozen.state_dict(), "mean": net.mean, "std": net.std}
    for name, tensor in sorted(named.items()):
        digest.update(f"{name} {tensor.dtype} {[*tensor.shape]} ".encode())
        digest.update(_bytes_of(tensor))
    features = net.frozen_features(photo)
    digest.update(f"{[*features.shape]} {features.double().mean():.3g}".encode())
    return digest.hexdigest()


def _bytes_of(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
