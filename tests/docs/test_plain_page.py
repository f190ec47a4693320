"""The page on nets and data of one's own: its blocks run one after another."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "plain.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)


def test_the_blocks_run_one_after_another():
    names: dict[str, object] = {"__name__": __name__}
    for language, text in BLOCKS:
        assert language == "python"
        exec(compile(text, "plain.md", "exec"), names)
    assert names["best"](names["inputs"]).shape == (32, 1)
