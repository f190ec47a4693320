"""From a spec to TOML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from mip.errors import SpecError
from mip.nn import Function
from mip.spec.kinds import ROLES, flat_fields, lacks_name, name_of, plays
from mip.spec.values import Spec


def dump(spec: Spec) -> str:
    """Write a spec as TOML: its version, then every field with its value;
    `parse(dump(spec)) == spec`.
    """
    import tomli_w

    return tomli_w.dumps({"version": spec.version, **to_dict(spec)})


def to_dict(value: Any) -> Any:
    """Turn a spec, or a part of one, into plain dicts, lists and values; None is left out.

    Raises SpecError for a kind whose class does not state its name.
    """
    if isinstance(value, Function):
        return value.name
    if attrs.has(type(value)):
        fields = {name: to_dict(child) for name, child in _fields(value)}
        return _kind(type(value)) | fields
    if isinstance(value, Mapping):
        return {name: to_dict(child) for name, child in value.items()}
    return [to_dict(child) for child in value] if isinstance(value, tuple) else value


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    flat = flat_fields(type(value))
    for field in attrs.fields(type(value)):
        child = getattr(value, field.name)
        if field.name in flat:
            yield from _fields(child)
        elif child is not None:
            yield field.name, child
        elif field.default is not None:
            kind = type(value).__name__
            raise SpecError(f"{kind}.{field.name} is None, which TOML cannot express")


def _kind(kind: type) -> dict[str, str]:
    if name := name_of(kind):
        return {"kind": name}
    if any(plays(kind, role) for role in ROLES):
        raise SpecError(lacks_name(kind, kind.__name__.lower()))
    return {}  # a section, such as [train]
