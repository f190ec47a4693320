"""Every block of the page on watching runs, in one folder, in the order in which it is read."""

from __future__ import annotations

import re
from pathlib import Path

from mip.fit import EVENTS

PAGE = (Path(__file__).parent.parent / "docs" / "hooks.md").read_text()


def test_the_blocks_run_one_after_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert set(re.findall(r"```(\w+)\n", PAGE)) == {"python"}
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "hooks.md", "exec"), names)
    assert names["state"].step == 20
    made = {"drift.png", "histograms.png", "checkpoints", "history.csv"}
    assert {path.name for path in tmp_path.iterdir()} == made


def test_every_event_is_explained():
    assert not [name for name in EVENTS if f"`{name}`" not in PAGE]
