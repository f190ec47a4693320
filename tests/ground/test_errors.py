"""Errors name the nearest right thing, and what is around it, in one line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mip.errors import LISTED_WIDTH, add_note, hint


def listed(text):
    return text.partition("(known: ")[2].removesuffix(")").split(", ")


@given(st.lists(st.text("abcdef", min_size=1, max_size=60), min_size=1, max_size=80, unique=True))
def test_known_names_are_all_listed_or_as_many_as_fit(names):
    shown = listed(hint("abc", names))
    if shown[-1] != "…":
        assert len(shown) == len(names)
        return
    width = len(", ".join(shown[:-1]))
    assert width <= LISTED_WIDTH
    assert len(shown) > 2 or len(names) == 1


@pytest.mark.parametrize("k", [0, 7, 199])
def test_the_nearest_name_is_listed_first_wherever_it_stands(k):
    names = [f"column_{n:03}_of_a_wide_table" for n in range(200)]
    text = hint(names[k][:-1], names)
    assert text.startswith(f"; did you mean '{names[k]}'?")
    assert listed(text)[0] == names[k]
    assert listed(text)[-1] == "…"


def test_meant_names_come_first_and_are_listed_once():
    names = [f"kind_{n:03}" for n in range(200)]
    shown = listed(hint("kind_000", names, meant=["kind_150", "elsewhere"]))
    assert shown[:2] == ["kind_150", "kind_000"]
    assert len(set(shown)) == len(shown)
    assert "elsewhere" not in shown


def test_a_note_is_added_once():
    error = ValueError("no")
    for note in ("here", "there", "here"):
        add_note(error, note)
    assert error.__notes__ == ["here", "there"]
