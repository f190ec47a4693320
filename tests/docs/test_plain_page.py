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


PRINTED = re.compile(r"^(mip\.\w[\w.]*\(.*\))\n((?:# .*\n)+)", re.MULTILINE)
"""A call, and what it returns in comments below it."""


def test_what_calls_return_stands_below_them():
    names: dict[str, object] = {"__name__": __name__}
    for _, text in BLOCKS:
        exec(compile(text, "plain.md", "exec"), names)
        for call, shown in PRINTED.findall(text):
            actual = repr(eval(call, names)).replace(f"{names.get('folder')}/", "")
            assert actual == shown.replace("# ", "", 1).replace("\n# ", "\n").strip()
    assert len(PRINTED.findall(PAGE)) == 2
