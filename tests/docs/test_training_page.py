"""The page on training: its blocks run and are specs, and it tells of every kind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import HEADS, NUMBERS

import mip
from mip import optim
from mip.optim import OptimizerSpec, ScheduleSpec
from mip.spec.kinds import plays

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
SPECS = [text for language, text in BLOCKS if language == "toml"]


def test_the_python_blocks_run_one_after_another():
    names: dict[str, object] = {"__name__": __name__}
    for language, text in BLOCKS:
        if language == "python":
            exec(compile(text, "training.md", "exec"), names)
    assert names["smooth"].keys() == names["state"].params.keys()
    text = NUMBERS + HEADS["regression"] + '[train]\noptimizer = { kind = "signs" }\n'
    assert mip.parse(text, names["kinds"]).train.optimizer.lr == 1e-3


@pytest.mark.parametrize("text", SPECS, ids=[str(k) for k in range(len(SPECS))])
def test_every_fragment_is_a_spec(text):
    spec = mip.parse(NUMBERS + HEADS["regression"] + text)
    assert mip.parse(mip.dump(spec)) == spec
    assert spec.train.schedule.schedule(spec.train.optimizer.lr, 100)(50) > 0


def test_there_are_no_blocks_that_no_test_runs():
    assert {language for language, _ in BLOCKS} <= {"toml", "python", "sh"}


@pytest.mark.parametrize("role", [OptimizerSpec, ScheduleSpec])
def test_every_kind_is_told_of(role):
    for name, kind in mip.KINDS.items():
        assert not plays(kind, role) or f"`{name}`" in PAGE
        assert not plays(kind, role) or hasattr(optim, name)
