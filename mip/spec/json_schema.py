"""The JSON Schema of spec files, made from the classes that specs are read into.

Ranges are read from attrs' validators. The schema allows somewhat more than `parse` does, since it
cannot know what a class checks in code.
"""

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
from mip.nn import Function
from mip.spec.kinds import (
    KINDS,
    Kinds,
    flat_fields,
    functions_in,
    is_role,
    name_of,
    plays,
)
from mip.spec.values import Spec
from mip.spec.writing import to_dict

Schema = dict[str, Any]
"""A JSON Schema, or a part of one, as plain JSON values."""


def schema(kinds: Kinds = KINDS) -> Schema:
    """Return the JSON Schema (draft 2020-12) of the spec files that a table of kinds allows.

    It accepts somewhat more than `parse`: rules that a class checks in its own code are not in it.

    >>> schema()["$defs"]["Train"]["properties"]["epochs"]
    {'type': 'integer', 'minimum': 0, 'default': 20}
    """
    writer = _Writer(kinds)
    spec = writer.record(Spec)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mip spec",
        **spec,
        "$defs": dict(sorted(writer.definitions.items())),
    }


_SCALARS = {bool: "boolean", float: "number", int: "integer", str: "string"}


@attrs.frozen
class _Writer:
    """Makes schemas of annotated types, and collects those of classes as definitions."""

    kinds: Kinds
    definitions: dict[str, Schema] = attrs.field(factory=dict)

    def value(self, kind: Any) -> Schema:
        """Return the schema of the type `kind`, an annotation."""
        origin, args = get_origin(kind), get_args(kind)
        if kind is Function:
            return {"enum": sorted(functions_in(self.kinds))}
        if attrs.has(kind):
            return self.define(kind.__name__, kind)
        if is_role(kind):
            return self.choice(kind)
        if origin in (Union, UnionType):
            options = [self.value(option) for option in args if option is not NoneType]
            options = [option for option in options if option != {"enum": []}]
            return options[0] if len(options) == 1 else {"anyOf": options}
        if origin is Literal:
            return {"enum": list(args)}
        if origin is tuple:
            return {"type": "array", "items": self.value(args[0])}
        if origin is not None and issubclass(origin, Mapping):
            child = self.value(args[1])
            return _modules(child) if is_role(args[1]) else _mapping(child)
        return {"type": _SCALARS[kind]}

    def choice(self, role: Any) -> Schema:
        """Return a reference to the schema of all kinds that play a role."""
        name = role.__name__
        if name not in self.definitions:
            players = {name: kind for name, kind in self.kinds.items() if plays(kind, role)}
            # Defined before its kinds, because a fusion holds branches again.
            self.definitions[name] = {"oneOf": []}
            self.definitions[name]["oneOf"] = [
                self.define(f"kind.{name}", kind, name) for name, kind in players.items()
            ]
        return {"$ref": f"#/$defs/{name}"}

    def define(self, name: str, kind: type, kind_name: str = "") -> Schema:
        """Return a reference to the schema of a class."""
        if name not in self.definitions:
            self.definitions[name] = {}
            self.definitions[name] = self.record(kind, kind_name)
        return {"$ref": f"#/$defs/{name}"}

    def record(self, kind: type, kind_name: str = "") -> Schema:
        """Return the schema of a table with the fields of a class."""
        hints, flat = type_hints(kind), flat_fields(kind)
        fields = [field for field in attrs.fields(kind) if field.name not in flat]
        properties: Schema = {"kind": {"const": kind_name}} if kind_name else {}
        required = [*properties, *(f.name for f in fields if f.default is attrs.NOTHING)]
        for field in fields:
            properties[field.name] = self.field(field, hints[field.name])
        for part in flat.values():
            properties |= self.record(part)["properties"]
        return {
            "description": _first_sentence(kind),
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }

    def field(self, field: attrs.Attribute, hint: Any) -> Schema:
        """Return the schema of a field: its type, limits and default."""
        result = self.value(hint)
        limits: Schema = {}
        for validator in _flatten(field.validator):
            limits |= _limit(validator, result.get("type", ""))
        return result | limits | self.default(field.default)

    def default(self, value: Any) -> Schema:
        """Return the default of a field, unless its kind is not in the table."""
        if value is None or value is attrs.NOTHING:
            return {}
        if hasattr(value, "takes_self"):  # a factory, which can be called if it needs no instance
            return {} if value.takes_self else self.default(value.factory())
        name = name_of(type(value))
        return {"default": to_dict(value)} if name is None or name in self.kinds else {}


def _first_sentence(kind: type) -> str:
    text = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.])\s", text, maxsplit=1)[0]


def _flatten(validator: Any) -> Iterator[Any]:
    # The classes of attrs' validators are private; their attributes are what distinguishes them.
    if hasattr(validator, "_validators"):
        for child in validator._validators:
            yield from _flatten(child)
    elif hasattr(validator, "validator"):
        yield from _flatten(validator.validator)
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


def _mapping(child: Schema) -> Schema:
    # TOML makes nested tables of a dotted name without quotes; only texts have such names.
    nested = {"anyOf": [child, {"type": "object"}]} if child == {"type": "string"} else child
    return {"type": "object", "additionalProperties": nested}


def _modules(child: Schema) -> Schema:
    # \w would mean ASCII to some readers; a branch's name may have any letters after its first.
    taken = [name for name in dir(nn.ModuleDict()) if name[0].isalpha()]
    allowed = {"pattern": r"^[A-Za-z][^\s!-,./:-@\[-^`{-~]*$", "not": {"enum": taken}}
    return {"type": "object", "propertyNames": allowed, "additionalProperties": child}
