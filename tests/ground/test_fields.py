"""Fields of specs say what is wrong with them, by name."""

from __future__ import annotations

import pickle
from typing import Literal

import pytest
from attrs import field, frozen

from mip.errors import FieldError
from mip.fields import MinLength, choice


@frozen
class Words:
    case: Literal["", "lower", "upper"] = choice("lower")
    names: tuple[str, ...] = field(default=("a", "b"), validator=MinLength(2))


def test_a_choice_is_one_of_the_words_of_its_annotation():
    assert [Words(case).case for case in ("", "lower", "upper")] == ["", "lower", "upper"]
    for wrong in ("Lower", None, 1, ["lower"]):
        with pytest.raises(FieldError) as caught:
            Words(wrong)
        known = "'', 'lower', 'upper'"
        assert str(caught.value) == f"'case' must be one of {known}, not {wrong!r}"


def test_a_field_has_as_many_entries_as_it_needs():
    with pytest.raises(FieldError, match=r"^'names' must have at least 2 entries, not 1$"):
        Words(names=("a",))


def test_an_error_of_a_field_comes_back_from_a_worker_process():
    error = pickle.loads(pickle.dumps(FieldError("size", "must be even: 3")))
    assert (error.field, error.message) == ("size", "must be even: 3")
    assert isinstance(error, ValueError)
