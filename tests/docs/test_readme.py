"""Every code block of the README runs, in one folder, in the order in which a reader meets it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

import mip
from mip.cli.app import VERBS, command_name
from mip.demo import draw

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
QUICK = {"mip demo-data": "--rows 60", "mip fit": "--set train.epochs=1"}


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCKS if name == language]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("readme")
    draw(made / "demo", n_rows=60)
    (made / "houses.toml").write_text(blocks("toml")[0])
    return made


def run_commands(block: str, run: Callable[..., tuple[int, str, str]]) -> None:
    for line in block.strip().splitlines():
        more = next((text for start, text in QUICK.items() if line.startswith(start)), "")
        code, out, err = run(*shlex.split(line, comments=True)[1:], *shlex.split(more))
        assert code == 0, f"{line}\n{out}\n{err}"


def test_there_are_no_blocks_that_no_test_runs():
    assert {name for name, _ in BLOCKS} == {"sh", "toml", "python"}


def test_the_spec_block_means_itself_after_a_round_trip():
    spec = mip.parse(blocks("toml")[0])
    assert mip.parse(mip.dump(spec)) == spec


@pytest.mark.filterwarnings("ignore:.*rows.*dropped")
def test_the_python_blocks_run_one_after_another(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names: dict[str, object] = {"__name__": __name__}
    for text in blocks("python"):
        exec(compile(text.replace("epochs=25", "epochs=2"), "README.md", "exec"), names)
    assert len(names["predict"](names["test"])) == len(names["test"])
    assert "season" in names["plan"].facts["branch"]


def test_the_blocks_of_the_page_about_data_run_one_after_another(folder, run, monkeypatch):
    monkeypatch.chdir(folder)
    text = (ROOT / "docs" / "data.md").read_text()
    names: dict[str, object] = {"__name__": __name__}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "data.md", "exec"), names)
    assert "\n".join(["```text", *names["made"].notes, "```"]) in text
    run_commands(*re.findall(r"```sh\n(.*?)```", text, re.DOTALL), run)
    pixels = names["batch"].inputs["photos"]["pixels"]
    assert pixels.shape == (32, 2, 3, 48, 48)
    assert not next(iter(names["cached"])).target.equal(names["batch"].target)
    assert names["spec"].train.cutmix == 1
    assert len(list(names["loader"])) == len(names["batches"]) == 4
    assert len(list(names["noisy"])) == 4


def test_every_verb_has_a_row():
    rows = set(re.findall(r"^\| `mip ([\w-]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    verbs = {command_name(verb) for verbs in VERBS.values() for verb in verbs}
    assert verbs == rows, "describe each verb in the README's table"


def test_the_commands_run_one_after_another(folder, run, monkeypatch):
    monkeypatch.chdir(folder)
    run_commands(blocks("sh")[0], run)
    assert (folder / "predictions.csv").read_text().startswith("row,value")
