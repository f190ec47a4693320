"""From a spec to TOML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from mip.errors import SpecError
from mip.spec.kinds import ROLES, flat_fields, lacks_name, name_of, plays
from mip.spec.values import Spec


def dump(spec: Spec) -> str:
    """Write a spec as TOML, its version first, then every field with its value;
    `parse(dump(spec)) == spec`.
    """
    import tomli_w

    return tomli_w.dumps({"version": spec.version, **to_dict(spec)})


def to_dict(value: Any) -> Any:
    """Turn a spec into plain dicts, lists and values; what is None is left out.

    Raises SpecError for a class of a kind that does not state its name.
    """
    if attrs.has(type(value)):
        fields = {name: to_dict(child) for name, child in _fields(value)}
        return _kind(type(value)) | fields
    if isinstance(value, Mapping):
        return {name: to_dict(child) for name, child in value.items()}
    return [to_dict(child) for child in value] if isinstance(value, tuple) else value


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    flat = flat_fields(type(value))
    for each in attrs.fields(type(value)):
        child = getattr(value, each.name)
        if each.name in flat:
            yield from _fields(child)
            continue
        if child is None and each.default is not None:
            raise SpecError(f"{type(value).__name__}.{each.name} is None, which TOML cannot say")
        if child is not None:
            yield each.name, child


def _kind(kind: type) -> dict[str, str]:
    if name := name_of(kind):
        return {"kind": name}
    if any(plays(kind, role) for role in ROLES):
        raise SpecError(lacks_name(kind, kind.__name__.lower()))
    return {}  # a section, such as [train]
