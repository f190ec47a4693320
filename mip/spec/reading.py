"""From TOML to a spec: every mistake is named with its path.

A walk along the type hints builds the values, rather than cattrs, because it knows the path at
every point; with a converter, errors would have to be rebuilt from its exceptions to name it.
"""

from __future__ import annotations

import json
import re
import tomllib
import traceback
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import attrs
from torch import nn

from mip.data import FORMATS
from mip.errors import FieldError, SpecError, hint
from mip.fields import type_hints
from mip.nn import Function
from mip.spec.kinds import (
    KINDS,
    Kinds,
    flat_fields,
    functions_in,
    is_role,
    lacks_name,
    missing_verbs,
    name_of,
    plays,
)
from mip.spec.synonyms import fields_meant, kinds_meant, values_meant
from mip.spec.values import Spec
from mip.spec.versions import check_version, upgrade


def load_spec(
    path: str | Path, kinds: Kinds = KINDS, changes: Mapping[str, Any] | None = None
) -> Spec:
    """Read a spec file; `changes` sets values at dotted paths before it is read.

    Paths inside the file are kept as they are written. Raises SpecError naming the file, the path
    inside it, and the nearest right name.
    """
    path = Path(path)
    try:
        if path.suffix.lower() in FORMATS or not path.is_file():
            kind = "folder" if path.is_dir() else "table" if path.is_file() else ""
            what = (
                f"is a {kind}, not a spec, which mip new writes"
                if kind
                else "there is no such spec"
            )
            near = [file.name for file in path.parent.glob("*.toml")]
            meant = [name for name in near if name == f"{path.stem}.toml"]
            raise SpecError(f"{path}: {what}{hint(path.name, near, meant)}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not a text: a spec is a TOML file ({error})") from error
    try:
        return parse(text, kinds, changes)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error


def parse(text: str, kinds: Kinds = KINDS, changes: Mapping[str, Any] | None = None) -> Spec:
    """Read a spec from TOML text.

    >>> parse('''
    ... [branch.rooms]
    ... kind = "continous"
    ... columns = ["area"]
    ... [head]
    ... kind = "regression"
    ... column = "price"
    ... ''')
    Traceback (most recent call last):
    mip.errors.SpecError: branch.rooms.kind = 'continous' is not a kind; did you mean \
'continuous'? (known: boolean, categorical, continuous, datetime, fuse, image, stub, \
tabular, text, vector)
    """
    if len(text) > 1_000_000:
        raise SpecError("a spec has at most 1,000,000 characters")
    if sum(line.count(".") ** 2 for line in text.split("\n")) > 10_000_000:
        raise SpecError("dotted key too long")  # the time to read one grows with its square
    try:
        tree = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SpecError(f"not valid TOML: {error}") from error
    for path, value in (changes or {}).items():
        *names, last = path.split(".")
        table = tree
        for name in names:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise SpecError(f"{path}: '{name}' is not a table")
        table[last] = value
    return from_dict(tree, kinds)


def from_dict(tree: Mapping[str, Any], kinds: Kinds = KINDS) -> Spec:
    """Build a spec from plain dicts, lists and values, strictly: nothing is converted.

    Raises SpecError with the path for an unknown kind or field, a missing field, a wrong type
    and a value out of range, and for a version that is not known yet.
    """
    check_version(tree)
    try:
        return _Reader(kinds).value(Spec, upgrade(tree), "")
    except RecursionError as error:
        raise SpecError("branches are nested too deep") from error


_NO_FIELDS = {
    "metrics": "; the head computes its metrics, and mip.evaluate(run, rows, ['f1']) others",
}


@attrs.frozen
class _Reader:
    """Builds values of annotated types from plain ones; kinds must be in the table."""

    kinds: Kinds

    def value(self, kind: Any, value: Any, path: str) -> Any:
        """Build a value of the type `kind`, an annotation."""
        origin, args = get_origin(kind), get_args(kind)
        if kind is Function:
            return self.function(value, path)
        if attrs.has(kind):
            return self.record(kind, value, path, role=kind.__name__)
        if is_role(kind):
            return self.choice(kind, value, path)
        if origin in (Union, UnionType):
            return self.union(args, value, path)
        if origin is Literal:
            return _one_of(args, value, path)
        if origin is tuple:
            children = enumerate(_expect(list, value, path))
            return tuple(self.value(args[0], child, f"{path}[{k}]") for k, child in children)
        if origin is not None and issubclass(origin, Mapping):
            return self.mapping(args[1], _expect(dict, value, path), path)
        return float(value) if kind is float and type(value) is int else _expect(kind, value, path)

    def record(self, kind: type, value: Any, path: str, role: str) -> Any:
        """Build an instance of a frozen class from a table with its fields."""
        _expect(dict, value, path)
        hints, flat = type_hints(kind), flat_fields(kind)
        own = {field.name: field for field in attrs.fields(kind) if field.name not in flat}
        inner = {field.name: name for name in flat for field in attrs.fields(flat[name])}
        for name in value:
            if name not in own and name not in inner:
                known = [*own, *inner]
                names = _NO_FIELDS.get(name) or hint(name, known, fields_meant(name, role, known))
                raise SpecError(f"{_join(path, name)} is not a field{names}")
        for name, field in own.items():
            if field.default is attrs.NOTHING and name not in value:
                raise SpecError(f"{_join(path, name)} is missing")
        given = [name for name in value if name in own]
        fields = {name: self.value(hints[name], value[name], _join(path, name)) for name in given}
        for name, part in flat.items():
            options = {field: value[field] for field in value if inner.get(field) == name}
            fields[name] = self.record(part, options, path, role=part.__name__)
        try:
            return kind(**fields)
        except ValueError as error:
            raise SpecError(_at_field(error, kind, path)) from error

    def choice(self, role: Any, value: Any, path: str) -> Any:
        """Build an instance of the kind that a table names."""
        known = {name: kind for name, kind in self.kinds.items() if plays(kind, role)}
        where = _join(path, "kind")
        if isinstance(value, str):
            near = kinds_meant(value, role.__name__, known) or get_close_matches(value, known)
            name = value if value in known else next(iter(near), "…")
            cure = f'must be a table: {{ kind = "{name}" }}'
            raise SpecError(f"{path} = {_show(value)} {cure}{hint('', known)}")
        _expect(dict, value, path)
        if "kind" not in value:
            for name in get_close_matches("kind", value, n=1, cutoff=0.7):
                raise SpecError(f"{_join(path, name)} is not a field; did you mean 'kind'?")
            raise SpecError(f"{where} is missing{hint('', known)}")
        name = value["kind"]
        if not isinstance(name, str) or name not in known:
            lacking = missing_verbs(self.kinds.get(name) if isinstance(name, str) else None, role)
            names = hint(str(name), known, kinds_meant(str(name), role.__name__, known))
            raise SpecError(f"{where} = {_show(name)} is not a kind{lacking or names}")
        if name_of(known[name]) != name:  # it could be written and not be read again
            raise SpecError(f"{where} = {_show(name)}: {lacks_name(known[name], name)}")
        fields = {key: child for key, child in value.items() if key != "kind"}
        return self.record(known[name], fields, path, role.__name__)

    def union(self, options: tuple[Any, ...], value: Any, path: str) -> Any:
        """Build a value of the first type that suits it, or else of the first type."""
        types = [option for option in options if option is not NoneType]
        if Function in types and isinstance(value, str):
            names_function = str not in types or value in functions_in(self.kinds)
            return self.function(value, path) if names_function else value
        suitable = [kind for kind in types if isinstance(kind, type) and isinstance(value, kind)]
        return self.value((suitable or types)[0], value, path)

    def function(self, name: str, path: str) -> Function:
        """Return a function of the table of kinds by its name."""
        known = functions_in(self.kinds)
        if name not in known:
            cure = hint(name, known) or f"; pass kinds={{**mip.KINDS, '{name}': function}}"
            raise SpecError(f"{path} = {_show(name)} is not a function of the table of kinds{cure}")
        try:
            return Function(name, known[name])
        except FieldError as error:
            raise SpecError(f"{path} = {_show(name)} {error.message}") from error

    def mapping(self, kind: Any, value: Mapping[str, Any], path: str) -> dict[str, Any]:
        """Build a dict of values of the type `kind`; those that play a role are named modules."""
        if is_role(kind):
            for name in value:
                _check_name(name, path)
        items = _undo_nesting(value) if kind is str else value
        return {name: self.value(kind, child, _join(path, name)) for name, child in items.items()}


def _at_field(error: ValueError, kind: type, path: str) -> str:
    if isinstance(error, FieldError):
        name, text = error.field, str(error)
    else:  # of attrs' validators, which begin with the name in quotes, or of a user's own
        name, text = _validated(error, kind), str(*error.args[:1]) or "this value is not allowed"
    if name.partition(".")[0] not in attrs.fields_dict(kind):
        return f"{path}: {text}"
    where, quoted = _join(path, name), f"'{name}'"
    return where + text.removeprefix(quoted) if text.startswith(quoted) else f"{where}: {text}"


def _validated(error: ValueError, kind: type) -> str:
    """Return the name of the field whose validator raised the error; empty if none did."""
    # No exception of a validator has to name its field, but attrs hands every validator the
    # attribute, and so one of the frames that the error came through has it.
    assert error.__traceback__ is not None
    for frame, _ in traceback.walk_tb(error.__traceback__.tb_next):
        for value in frame.f_locals.values():
            if isinstance(value, attrs.Attribute) and value in attrs.fields(kind):
                return value.name
    return ""


def _one_of(words: tuple[str, ...], value: Any, path: str) -> Any:
    if value not in words:
        names = hint(str(value), words, values_meant(str(value), words))
        raise SpecError(f"{path} = {_show(value)} is not allowed{names}")
    return value


def is_module_name(name: str) -> bool:
    """Return whether a branch or a head can have this name.

    >>> is_module_name("price"), is_module_name("type"), is_module_name("a b")
    (True, False, False)
    """
    is_taken = hasattr(nn.ModuleDict(), name) or name in {"body", "branch", "head"}
    return not is_taken and re.fullmatch(r"[A-Za-z][\w-]*", name) is not None


def _check_name(name: str, path: str) -> None:
    if not is_module_name(name):
        raise SpecError(f"{_join(path, name)}: '{name}' cannot be the name of a branch")


def _undo_nesting(tables: Mapping[str, Any]) -> dict[str, Any]:
    # TOML makes nested tables of a dotted name without quotes.
    items: dict[str, Any] = {}
    for name, child in tables.items():
        below = _undo_nesting(child) if isinstance(child, Mapping) else None
        items |= {name: child} if below is None else {f"{name}.{k}": v for k, v in below.items()}
    return items


_TYPES = {
    bool: "true or false",
    dict: "a table",
    float: "a number",
    int: "a whole number",
    list: "a list",
    str: "text",
}


def _expect(kind: type, value: Any, path: str) -> Any:
    if type(value) is not kind and not (kind is dict and isinstance(value, Mapping)):
        actual = _TYPES.get(type(value), type(value).__name__)
        actual = "a number with a fraction" if kind is int and type(value) is float else actual
        shown = f" = {_show(value)}" if not isinstance(value, (dict, list)) else ""
        raise SpecError(f"{path or 'spec'}{shown} must be {_TYPES[kind]}, not {actual}")
    return value


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _show(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else json.dumps(value, default=str)
