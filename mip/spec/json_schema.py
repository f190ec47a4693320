"""The JSON Schema of spec files, read from the classes that `mip.spec` reads files with."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import attrs
from torch import nn

from mip.fields import type_hints
from mip.spec.kinds import KINDS, flat_fields, name_of, plays
from mip.spec.values import Spec
from mip.spec.writing import to_dict

Schema = dict[str, Any]
"""A JSON Schema, or a part of one: JSON."""


_SCALARS = {bool: "boolean", float: "number", int: "integer", str: "string"}


def schema(kinds: Mapping[str, type] = KINDS) -> Schema:
    """Give the JSON Schema (draft 2020-12) of the spec files that a table of kinds allows.

    It is somewhat wider than `parse`: a rule that a class holds in code of its own is not in it.

    >>> schema()["$defs"]["Train"]["properties"]["epochs"]
    {'type': 'integer', 'minimum': 0, 'default': 20}
    """
    definitions: dict[str, Schema] = {}
    whole = _record(Spec, kinds, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mip spec",
        **whole,
        "$defs": dict(sorted(definitions.items())),
    }


def _of(kind: Any, kinds: Mapping[str, type], definitions: dict[str, Schema]) -> Schema:
    origin, inner = get_origin(kind), get_args(kind)
    if attrs.has(kind):
        return _defined(kind.__name__, kind, kinds, definitions)
    if getattr(kind, "_is_protocol", False):
        return _choice(kind, kinds, definitions)
    if origin in (Union, UnionType):
        given = [_of(each, kinds, definitions) for each in inner if each is not NoneType]
        return given[0] if len(given) == 1 else {"anyOf": given}
    if origin is Literal:
        return {"enum": list(inner)}
    if origin is tuple:
        return {"type": "array", "items": _of(inner[0], kinds, definitions)}
    if origin is not None and issubclass(origin, Mapping):
        child = _of(inner[1], kinds, definitions)
        return _names(child) if getattr(inner[1], "_is_protocol", False) else _plain(child)
    return {"type": _SCALARS[kind]}


def _choice(role: Any, kinds: Mapping[str, type], definitions: dict[str, Schema]) -> Schema:
    if role.__name__ not in definitions:
        known = {name: kind for name, kind in kinds.items() if plays(kind, role)}
        # It stands there before its kinds are read, for a fusion holds branches again.
        definitions[role.__name__] = {"oneOf": []}
        definitions[role.__name__]["oneOf"] = [
            _defined(f"kind.{name}", kind, kinds, definitions, name) for name, kind in known.items()
        ]
    return _ref(role.__name__)


def _defined(
    where: str,
    kind: type,
    kinds: Mapping[str, type],
    definitions: dict[str, Schema],
    name: str = "",
) -> Schema:
    if where not in definitions:
        definitions[where] = {}
        definitions[where] = _record(kind, kinds, definitions, name)
    return _ref(where)


def _ref(where: str) -> Schema:
    return {"$ref": f"#/$defs/{where}"}


def _record(
    kind: type, kinds: Mapping[str, type], definitions: dict[str, Schema], name: str = ""
) -> Schema:
    hints, flat = type_hints(kind), flat_fields(kind)
    fields = [each for each in attrs.fields(kind) if each.name not in flat]
    word = {"kind": {"const": name}} if name else {}
    own = {each.name: _field(each, hints[each.name], kinds, definitions) for each in fields}
    for part in flat.values():
        own |= _record(part, kinds, definitions)["properties"]
    required = [each.name for each in fields if each.default is attrs.NOTHING]
    return {
        "description": _sentence(kind),
        "type": "object",
        "properties": {**word, **own},
        "required": [*word, *required],
        "additionalProperties": False,
    }


def _sentence(kind: type) -> str:
    text = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.])\s", text, maxsplit=1)[0]


def _field(
    each: Any, hint: Any, kinds: Mapping[str, type], definitions: dict[str, Schema]
) -> Schema:
    found = _of(hint, kinds, definitions)
    limits: Schema = {}
    for validator in _flat(each.validator):
        limits |= _limit(validator, found.get("type", ""))
    return found | limits | _default(each.default, kinds)


def _default(value: Any, kinds: Mapping[str, type]) -> Schema:
    if value is None or value is attrs.NOTHING:
        return {}
    if hasattr(value, "takes_self"):  # a factory: only one that asks for nothing can be called
        return {} if value.takes_self else _default(value.factory(), kinds)
    name = name_of(type(value))
    # A table of kinds need not hold that of a default.
    return {"default": to_dict(value)} if name is None or name in kinds else {}


def _flat(validator: Any) -> Iterator[Any]:
    # attrs keeps the classes of its validators to itself, so they are known by their attributes.
    if hasattr(validator, "_validators"):
        for each in validator._validators:
            yield from _flat(each)
    elif hasattr(validator, "validator"):
        yield from _flat(validator.validator)
    elif validator is not None:
        yield validator


_BOUNDS = {
    "<": "exclusiveMaximum",
    "<=": "maximum",
    ">": "exclusiveMinimum",
    ">=": "minimum",
}


_LENGTHS = {"array": "minItems", "object": "minProperties", "string": "minLength"}


def _limit(validator: Any, kind: str) -> Schema:
    if hasattr(validator, "compare_op") and math.isfinite(validator.bound):
        return {_BOUNDS[validator.compare_op]: validator.bound}
    if hasattr(validator, "min_length") and kind in _LENGTHS:
        return {_LENGTHS[kind]: validator.min_length}
    if isinstance(getattr(validator, "options", None), (tuple, list, set, frozenset)):
        return {"enum": list(validator.options)}
    return {}


def _plain(child: Schema) -> Schema:
    # A name with dots and without quotes is tables to TOML; they hold words alone.
    dotted = {"anyOf": [child, {"type": "object"}]} if child == {"type": "string"} else child
    return {"type": "object", "additionalProperties": dotted}


def _names(child: Schema) -> Schema:
    # \w would mean ASCII to some readers; a branch's name may have any letters behind its first.
    taken = [name for name in dir(nn.ModuleDict()) if name[0].isalpha()]
    allowed = {"pattern": r"^[A-Za-z][^\s!-,./:-@\[-^`{-~]*$", "not": {"enum": taken}}
    return {"type": "object", "propertyNames": allowed, "additionalProperties": child}
