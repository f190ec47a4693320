"""Declarations of fields that the frozen classes of specs share."""

from __future__ import annotations

from collections.abc import Sized
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

from attrs import Attribute, field, frozen

from mip.errors import FieldError

T = TypeVar("T")


@cache
def type_hints(kind: type) -> dict[str, Any]:
    """Return the annotations of a class, evaluated once."""
    return get_type_hints(kind)


def choice(default: T, kw_only: bool = False) -> T:
    """Declare a field that takes one of the words of its annotation:
    `pool: Literal["mean", "max"] = choice("mean")`.

    Any other value raises FieldError when the class is constructed.
    """
    return field(default=default, validator=in_annotation, kw_only=kw_only)


def in_annotation(instance: Any, attribute: Attribute, value: object) -> None:
    """Raise FieldError unless the value is one of the words of the field's annotation."""
    kind: type = type(instance)
    words = get_args(type_hints(kind)[attribute.name])
    if value not in words:
        known = ", ".join(map(repr, words))
        raise FieldError(attribute.name, f"must be one of {known}, not {value!r}")


@frozen
class MinLength:
    """A validator: at least `min_length` entries."""

    min_length: int

    def __call__(self, instance: Any, attribute: Attribute, value: Sized) -> None:
        if len(value) < self.min_length:
            entries = f"{self.min_length} entr{'y' if self.min_length == 1 else 'ies'}"
            raise FieldError(attribute.name, f"must have at least {entries}, not {len(value)}")
