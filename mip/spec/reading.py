"""From TOML to a spec: every mistake is named with its path."""

from __future__ import annotations

import json
import re
import tomllib
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import attrs
from torch import nn

from mip.errors import FieldError, SpecError, hint
from mip.fields import type_hints
from mip.spec.kinds import KINDS, flat_fields, lacks_name, missing_verbs, name_of, plays
from mip.spec.synonyms import fields_meant, kinds_meant
from mip.spec.values import Spec
from mip.spec.versions import check_version, upgrade


def load_spec(
    path: str | Path, kinds: Mapping[str, type] = KINDS, changes: Mapping[str, Any] | None = None
) -> Spec:
    """Read a spec file; `changes` puts values at dotted paths before it is read.

    Relative paths inside the file are kept as written: `resolve` finds them. Raises SpecError
    naming the file, the path inside it, and the nearest right name.
    """
    path = Path(path)
    try:
        if not path.is_file():
            near = [each.name for each in path.parent.glob("*.toml")]
            raise SpecError(f"{path}: there is no such spec{hint(path.name, near)}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not a text: a spec is a TOML file ({error})") from error
    try:
        return parse(text, kinds, changes)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error


def parse(
    text: str, kinds: Mapping[str, type] = KINDS, changes: Mapping[str, Any] | None = None
) -> Spec:
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
    for name, value in (changes or {}).items():
        _put(tree, name.split("."), value, name)
    return from_dict(tree, kinds)


def from_dict(tree: Mapping[str, Any], kinds: Mapping[str, type] = KINDS) -> Spec:
    """Build a spec of plain dicts, lists and values, strictly: nothing is converted.

    Raises SpecError with the path for an unknown kind or field, a missing field, a wrong type
    and a value out of range, and for a version that is yet to come.
    """
    check_version(tree)
    try:
        return _build(Spec, upgrade(tree), "", kinds)
    except RecursionError as error:
        raise SpecError("branches are nested too deep") from error


def _put(tree: dict[str, Any], names: list[str], value: Any, path: str) -> None:
    for name in names[:-1]:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise SpecError(f"{path}: '{name}' is not a table")
    tree[names[-1]] = value


def _build(kind: Any, value: Any, path: str, kinds: Mapping[str, type]) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if attrs.has(kind):
        return _record(kind, value, path, kinds, role=kind.__name__)
    if getattr(kind, "_is_protocol", False):
        return _choice(kind, value, path, kinds)
    if origin in (Union, UnionType):
        return _any_of([each for each in inner if each is not NoneType], value, path, kinds)
    if origin is Literal:
        return _word(inner, value, path)
    if origin is tuple:
        _expect(list, value, path)
        return tuple(_build(inner[0], each, f"{path}[{i}]", kinds) for i, each in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        named = getattr(inner[1], "_is_protocol", False)
        build = _names if named else _dotted if inner[1] is str else _plain
        return build(inner[1], value, path, kinds)
    return _scalar(kind, value, path)


def _record(kind: type, value: Any, path: str, kinds: Mapping[str, type], role: str) -> Any:
    _expect(dict, value, path)
    hints, flat = type_hints(kind), flat_fields(kind)
    inner = {field: name for name, part in flat.items() for field in attrs.fields_dict(part)}
    fields = {name: each for name, each in attrs.fields_dict(kind).items() if name not in flat}
    for name in value:
        if name not in fields and name not in inner:
            known = [*fields, *inner]
            names = hint(name, known, fields_meant(name, role, known))
            raise SpecError(f"{_join(path, name)} is not a field{names}")
    for name, each in fields.items():
        if each.default is attrs.NOTHING and name not in value:
            raise SpecError(f"{_join(path, name)} is missing")
    parts = {
        name: _build(hints[name], child, _join(path, name), kinds)
        for name, child in value.items()
        if name in fields
    }
    for name, part in flat.items():
        options = {field: child for field, child in value.items() if inner.get(field) == name}
        parts[name] = _record(part, options, path, kinds, role=part.__name__)
    try:
        return kind(**parts)
    except ValueError as error:
        raise SpecError(_at_field(error, kind, path)) from error


def _at_field(error: ValueError, kind: type, path: str) -> str:
    if isinstance(error, FieldError):
        name, text = error.field, str(error)
    else:  # of attrs' validators, which begin with the name in quotes, or of a user's own
        name, text = _validated(error, kind), str(*error.args[:1]) or "this value is not allowed"
    if name not in attrs.fields_dict(kind):
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


def _choice(role: Any, value: Any, path: str, kinds: Mapping[str, type]) -> Any:
    _expect(dict, value, path)
    known = {name: kind for name, kind in kinds.items() if plays(kind, role)}
    where = _join(path, "kind")
    if "kind" not in value:
        raise SpecError(f"{where} is missing{hint('', known)}")
    name = value["kind"]
    if not isinstance(name, str) or name not in known:
        lacking = missing_verbs(kinds.get(name) if isinstance(name, str) else None, role)
        names = hint(str(name), known, kinds_meant(str(name), role.__name__, known))
        raise SpecError(f"{where} = {_show(name)} is not a kind{lacking or names}")
    if name_of(known[name]) != name:  # a spec of it could be written and not be read again
        raise SpecError(f"{where} = {_show(name)}: {lacks_name(known[name], name)}")
    fields = {key: child for key, child in value.items() if key != "kind"}
    return _record(known[name], fields, path, kinds, role.__name__)


def _any_of(options: list[Any], value: Any, path: str, kinds: Mapping[str, type]) -> Any:
    fitting = [each for each in options if isinstance(each, type) and isinstance(value, each)]
    return _build((fitting or options)[0], value, path, kinds)


def _word(words: tuple[str, ...], value: Any, path: str) -> Any:
    if value not in words:
        raise SpecError(f"{path} = {_show(value)} is not allowed{hint(str(value), words)}")
    return value


def _names(kind: Any, value: Any, path: str, kinds: Mapping[str, type]) -> dict[str, Any]:
    _expect(dict, value, path)
    for name in value:
        taken = hasattr(nn.ModuleDict(), name) or name in {"body", "branch", "head"}
        if taken or not re.fullmatch(r"[A-Za-z][\w-]*", name):
            raise SpecError(f"{_join(path, name)}: '{name}' cannot be the name of a branch")
    return _plain(kind, value, path, kinds)


def _plain(kind: Any, value: Any, path: str, kinds: Mapping[str, type]) -> dict[str, Any]:
    _expect(dict, value, path)
    return {name: _build(kind, child, _join(path, name), kinds) for name, child in value.items()}


def _dotted(kind: Any, value: Any, path: str, kinds: Mapping[str, type]) -> dict[str, str]:
    # Without quotes TOML makes tables of a dotted name.
    _expect(dict, value, path)
    found: dict[str, str] = {}
    for name, child in value.items():
        if isinstance(child, Mapping):
            below = _dotted(kind, child, _join(path, name), kinds)
            found |= {f"{name}.{rest}": text for rest, text in below.items()}
        else:
            found[name] = _build(kind, child, _join(path, name), kinds)
    return found


_WORDS = {
    bool: "true or false",
    dict: "a table",
    float: "a number",
    int: "a whole number",
    list: "a list",
    str: "text",
}


def _scalar(kind: type, value: Any, path: str) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    return _expect(kind, value, path)


def _expect(kind: type, value: Any, path: str) -> Any:
    if type(value) is not kind and not (kind is dict and isinstance(value, Mapping)):
        found = _WORDS.get(type(value), type(value).__name__)
        found = "a number with a fraction" if kind is int and type(value) is float else found
        shown = f" = {_show(value)}" if not isinstance(value, (dict, list)) else ""
        raise SpecError(f"{path or 'spec'}{shown} must be {_WORDS[kind]}, not {found}")
    return value


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _show(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else json.dumps(value, default=str)
