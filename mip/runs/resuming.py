"""Resuming: checkpoints of a run, and whether they belong to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import evolve

from mip.compare import differences
from mip.data import Shards
from mip.errors import FileError, SpecError
from mip.files import Checkpoint, intact_checkpoints, load_checkpoint, load_model, read_file
from mip.model import Parts
from mip.nn import file_digest
from mip.runs.context import DEFAULT_CONTEXT, Context
from mip.runs.warm_starts import Sources
from mip.spec import KINDS, Spec, from_dict, to_dict

WINDOW = "window of the train rows"
"""The name of a window of shards in what describes a run."""


ROWS_OF_PARTS = tuple(f"{name} rows" for name in Parts._fields)
"""The names of the digests of the parts there."""


MAX_DIFFERENCES = 3
"""The number of settings that an error about another run names."""


def origin(spec: Spec, parts: Parts, base: Path = Path()) -> dict[str, Any]:
    """Describe what a run is made of: its spec, in which files of pretrained weights (relative to
    the folder `base`) are named by their digests; digests of its rows and, of shards, their window,
    on which the order of an epoch depends.
    """
    rows = {name: part.digest() for name, part in zip(ROWS_OF_PARTS, parts, strict=True)}
    window = parts.train.window if isinstance(parts.train, Shards) else None
    return {"spec": _described(spec, base), **rows, WINDOW: window}


def _described(spec: Spec, base: Path) -> dict[str, Any]:
    def digest(path: str) -> str:
        return f"sha256-{file_digest(base / path)}{Path(path).suffix}"

    root = spec.root.map_files(digest)
    return to_dict(evolve(spec, branch=root.branch))


def load_run_checkpoint(
    path: Path, start: Checkpoint, kinds: Mapping[str, type] = KINDS
) -> Checkpoint:
    """Read a checkpoint of the run that begins at `start`.

    It describes the run as `start` does: fields that may differ have their new values. Raises
    FileError if it is damaged, naming the newest other one that is intact, and SpecError
    naming what differs if it belongs to another run.
    """
    # Origins are compared first, because other rows or layers make other tensors too.
    before = {WINDOW: start.extra.get(WINDOW), **_origin_in(path, kinds)}  # older files lack it
    _check_same_run(path, before, start.extra)
    return evolve(load_checkpoint(path, start.state), extra=start.extra)


def epochs_before(path: Path, kinds: Mapping[str, type] = KINDS) -> int:
    """Return the number of epochs that the run of a checkpoint was to have."""
    return int(_origin_in(path, kinds)["spec"]["train"]["epochs"])


def sources_of_run(spec: Spec, path: Path, context: Context = DEFAULT_CONTEXT) -> Sources:
    """Load a checkpoint of the run as the source of every warm start: it holds their weights and
    facts, so the original model files are not needed.
    """
    if not spec.warm_start:
        return {}
    before = _origin_in(path, context.kinds).get("spec", {})
    _check_same_run(path, {"spec": before}, {"spec": _described(spec, context.base)})
    return dict.fromkeys(spec.warm_start, load_model(path, context.kinds))


def _origin_in(path: Path, kinds: Mapping[str, type]) -> dict[str, Any]:
    try:
        extra = read_file(path)[1].get("extra", {})
    except FileError as error:
        raise FileError(f"{error}{_intact_alternative(path)}") from error
    if "spec" not in extra:
        return extra
    try:
        # Read and written again, so that fields added since have their defaults.
        return {**extra, "spec": to_dict(from_dict(extra["spec"], kinds))}
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error


def _intact_alternative(damaged: Path) -> str:
    # Proposed and not used: going back loses epochs, and a disk that damages files needs attention.
    others = [(step, path) for step, path in intact_checkpoints(damaged.parent) if path != damaged]
    if not others:
        return ""
    step, newest = others[-1]
    return (
        f"; the newest intact one is {newest.name}, after step {step}: "
        f"copy it over {damaged.name} to resume from there"
    )


MAY_DIFFER = (
    "spec.data.table",
    "spec.data.split.folds",
    "spec.train.epochs",
    "spec.train.workers",
    "spec.warm_start.*",
)
"""Fields that may differ in a resumed run: where files are, how many processes read them, and how
long the run is.
"""


def _check_same_run(path: Path, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    found = [*differences(before, after, MAY_DIFFER)]
    if not found:
        return
    settings = [
        f"{name.removeprefix('spec.')} was {was!s:.60} and is {now!s:.60}"
        for name, was, now in found
        if name.partition(".")[0] not in ROWS_OF_PARTS
    ]
    what, own = ", ".join(settings[:MAX_DIFFERENCES]), "its own spec.toml"
    if not settings:
        rows, _, column = found[0].path.partition(".")
        what, own = f"the {rows} are others, column '{column}' differs", "the rows that it had"
    cure = f"resume it with {own}, or start again without resume"
    raise SpecError(f"{path}: not the same run: {what}; {cure}")
