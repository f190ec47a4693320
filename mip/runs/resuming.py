"""Resuming: whether a checkpoint is of the same run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mip.errors import FileError, SpecError
from mip.files import (
    Checkpoint,
    intact_checkpoints,
    last_checkpoint,
    load_checkpoint,
    load_model,
    read_file,
)
from mip.model import Parts
from mip.runs.warm_starts import Sources
from mip.spec import KINDS, Spec, from_dict, to_dict


def origin(spec: Spec, parts: Parts) -> dict[str, Any]:
    """Describe what a run is made of: its spec, and digests of its rows."""
    rows = {f"{name} rows": part.digest() for name, part in zip(parts._fields, parts, strict=True)}
    return {"spec": to_dict(spec), **rows}


def resumed(out: Path, start: Checkpoint, kinds: Mapping[str, type] = KINDS) -> Checkpoint:
    """Read the last checkpoint of a run folder and check that it belongs to this run.

    Raises FileError when there is none, or it is damaged, naming the newest other one that is
    whole; SpecError naming the first thing that has changed.
    """
    return verified(last_checkpoint(out), start, kinds)


def verified(path: Path, start: Checkpoint, kinds: Mapping[str, type] = KINDS) -> Checkpoint:
    """Read a checkpoint of the run that begins at `start`; raises as `resumed` does."""
    # What the run came from is compared first: other rows or layers give other tensors too.
    _check_same(path, _before(path, kinds), start.extra)
    return load_checkpoint(path, start.state)


def sources_of_run(spec: Spec, path: Path, kinds: Mapping[str, type] = KINDS) -> Sources:
    """Load a checkpoint of the run as the source of every warm start: it holds their weights and
    facts, so the original model files are not needed.
    """
    if not spec.warm_start:
        return {}
    before = _before(path, kinds).get("spec", {})
    _check_same(path, {"spec": before}, {"spec": to_dict(spec)})
    return dict.fromkeys(spec.warm_start, load_model(path, kinds))


def _before(path: Path, kinds: Mapping[str, type]) -> dict[str, Any]:
    try:
        extra = read_file(path)[1].get("extra", {})
    except FileError as error:
        raise FileError(f"{error}{_offer(path)}") from error
    if "spec" not in extra:
        return extra
    try:
        # A field that has been added since has its default in an older file.
        return {**extra, "spec": to_dict(from_dict(extra["spec"], kinds))}
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error


def _offer(damaged: Path) -> str:
    # Said and not done: going back costs epochs, and a disk that damages files wants a look.
    others = [(step, path) for step, path in intact_checkpoints(damaged.parent) if path != damaged]
    if not others:
        return ""
    step, newest = others[-1]
    return (
        f"; the newest whole one is {newest.name}, after step {step}: "
        f"copy it over {damaged.name} to go on from there"
    )


def _check_same(path: Path, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    one, other = _flat(before), _flat(after)
    for name, _ in sorted(one.items() ^ other.items()):
        was, now = (origin.get(name, "nothing") for origin in (one, other))
        raise SpecError(
            f"{path}: not the same run: {name} was {was:.60} and is {now:.60}; start anew"
        )


def _flat(tree: Any, path: str = "") -> dict[str, str]:
    """Flatten nested values to texts by dotted path; where files lie does not matter."""
    if isinstance(tree, (list, tuple)) and any(isinstance(child, Mapping) for child in tree):
        tree = {str(k): child for k, child in enumerate(tree)}
    if isinstance(tree, Mapping):
        pairs = [_flat(child, f"{path}.{name}" if path else name) for name, child in tree.items()]
        return {name: text for pair in pairs for name, text in pair.items()}
    skipped = {"spec.data.table", "spec.data.split.folds", "spec.train.workers"}
    if path in skipped:
        return {}
    return {path: "a model" if path.startswith("spec.warm_start.") else str(tree)}
