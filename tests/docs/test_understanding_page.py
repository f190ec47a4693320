"""The page on understanding a model: its commands and blocks run one after another."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "understanding.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
QUICK = {
    "mip demo-data": "--rows 60",
    "mip fit": "--set train.epochs=1 --set branch.photos.size=8",
    "mip explain": "--rows 20",
}


def test_there_are_no_blocks_that_no_test_runs():
    assert {language for language, _ in BLOCKS} == {"sh", "python"}


def test_its_pictures_are_there():
    for path in re.findall(r"!\[.+?\]\((.+?)\)", PAGE):
        assert (ROOT / "docs" / path).is_file()


@pytest.mark.filterwarnings("ignore:.*rows.*dropped")
def test_its_blocks_run_one_after_another(tmp_path, run, monkeypatch):
    shutil.copytree(ROOT / "specs" / "demo", tmp_path / "specs" / "demo")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": __name__}
    for language, text in BLOCKS:
        if language == "python":
            exec(compile(text, "understanding.md", "exec"), names)
            continue
        for line in text.strip().splitlines():
            more = next((text for start, text in QUICK.items() if line.startswith(start)), "")
            code, out, err = run(*shlex.split(line)[1:], *shlex.split(more))
            assert code == 0, f"{line}\n{out}\n{err}"
    explained = {path.name for path in (tmp_path / "runs/both/explained").iterdir()}
    assert {"importance.png", "branches.csv", "row-26.csv", "dependence-area.png"} <= explained
    assert {*names["one"]["column"]} == {"area", "age", "rooms", "district", "front", "garden"}
    assert len(names["nearest"]) == 6
    assert 0 < names["share"] <= 1
