"""Every block of the page on watching runs, in one folder, in the order in which it is read."""

from __future__ import annotations

import re
from pathlib import Path

from mip import hooks
from mip.train.events import EVENTS

PAGE = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text()


def test_the_blocks_run_one_after_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert set(re.findall(r"```(\w+)\n", PAGE)) == {"python"}
    names: dict[str, object] = {"__name__": __name__}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "hooks.md", "exec"), names)
    assert names["state"].step == 20
    pictures = {"activations.png", "histograms.png", "history.png", "again.png"}
    made = pictures | {"checkpoints", "watched", "history.csv", "steps.csv"}
    assert {path.name for path in tmp_path.iterdir()} == made


def test_every_event_is_explained():
    assert not [name for name in EVENTS if f"`{name}`" not in PAGE]


def test_every_ready_made_hook_is_in_the_table():
    section = PAGE[PAGE.index("## Ready-made hooks") : PAGE.index("## Watching a run")]
    listed = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(listed) == sorted(filter(_makes_a_hook, hooks.__all__))


def _makes_a_hook(name):
    return getattr(hooks, name).__annotations__.get("return") == "Hook"
