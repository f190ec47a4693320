"""Where two trees differ is named by path, for whoever phrases it."""

from __future__ import annotations

import pytest

from mip.compare import NOTHING, differences


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"a": 1, "b": [1, 2]}, {"b": [1, 2], "a": 1}, []),
        ({"a": 1}, {"a": 2}, [("a", 1, 2)]),
        ({"a": [1, 2]}, {"a": [1]}, [("a", [1, 2], [1])]),
        ({"b": {"x": 1}}, {}, [("b.x", 1, NOTHING)]),
        ({}, {"b": {"x": {"y": 1}}}, [("b.x.y", NOTHING, 1)]),
        ({}, {"b": {}}, []),
        ({"a": [{"x": 1}, {"x": 2}]}, {"a": [{"x": 1}, {"x": 3}]}, [("a.1.x", 2, 3)]),
        ({"a": [{"x": 1}]}, {"a": [{"x": 1}, {"y": 2}]}, [("a.1.y", NOTHING, 2)]),
        ({"a": {"x": 1}}, {"a": 1}, [("a", {"x": 1}, 1)]),
        ({"z": 1, "a": 1}, {"a": 2, "z": 2, "b": 3}, [("z", 1, 2), ("a", 1, 2), ("b", NOTHING, 3)]),
    ],
)
def test_every_difference_has_its_path(one, other, expected):
    assert list(differences(one, other)) == expected


def test_what_is_ignored_may_differ_and_may_not_be_absent():
    one = {"head": {"layers": [1], "file": "a"}, "file": "a"}
    other = {"head": {"layers": [2]}, "file": "b"}
    actual = list(differences(one, other, ignore=["*.layers", "file", "head.file"]))
    assert actual == [("head.file", "a", NOTHING)]
