"""From a spec to TOML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from mip.errors import SpecError
from mip.spec.kinds import KINDS, ROLES, plays
from mip.spec.values import Spec


def dump(spec: Spec, kinds: Mapping[str, type] = KINDS) -> str:
    """Write a spec as TOML, its version first, then every field with its value;
    `parse(dump(spec)) == spec`.
    """
    import tomli_w

    return tomli_w.dumps({"version": spec.version, **to_dict(spec, kinds)})


def to_dict(value: Any, kinds: Mapping[str, type] = KINDS) -> Any:
    """Turn a spec into plain dicts, lists and values; what is None is left out.

    Raises SpecError for a kind that the table does not name.
    """
    if attrs.has(type(value)):
        kind = _kind(type(value), kinds)
        return kind | {name: to_dict(child, kinds) for name, child in _told(value)}
    if isinstance(value, Mapping):
        return {name: to_dict(child, kinds) for name, child in value.items()}
    return [to_dict(child, kinds) for child in value] if isinstance(value, tuple) else value


def _told(value: Any) -> Iterator[tuple[str, Any]]:
    for each in attrs.fields(type(value)):
        child = getattr(value, each.name)
        if child is None and each.default is not None:
            raise SpecError(f"{type(value).__name__}.{each.name} is None, which TOML cannot say")
        if child is not None:
            yield each.name, child


def _kind(kind: type, kinds: Mapping[str, type]) -> dict[str, str]:
    for name, known in kinds.items():
        if known is kind:
            return {"kind": name}
    if any(plays(kind, role) for role in ROLES):
        given = f"kinds={{**mip.KINDS, 'name': {kind.__name__}}}"
        raise SpecError(f"{kind.__name__} is not in the table of kinds: give it as {given}")
    return {}
