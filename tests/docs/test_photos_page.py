"""The page on photos: its commands run one after another, and its fragments are specs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
import torchvision

import mip

PAGE = (Path(__file__).parents[2] / "docs" / "photos.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
SPECS = [text for language, text in BLOCKS if language == "toml"]
WEIGHTS = "weights/mobilenet_v3_small-047dcff4.pth"
QUICK = {
    "mip demo-data": "--rows 24",
    "mip fit": "--set branch.photos.size=32 --set train.epochs=1 --set fusion.residual_folds=2",
}


def test_there_are_no_blocks_that_no_test_runs():
    assert {language for language, _ in BLOCKS} == {"sh", "toml"}


@pytest.mark.filterwarnings("ignore:.*adds next to nothing to the other")
def test_the_commands_run_one_after_another(tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("weights").mkdir()
    net = torchvision.models.get_model("mobilenet_v3_small", weights=None)
    torch.save(net.state_dict(), WEIGHTS)
    lines = [line for name, text in BLOCKS if name == "sh" for line in text.strip().splitlines()]
    assert any(WEIGHTS in line for line in lines)
    for line in lines:
        more = next((text for start, text in QUICK.items() if line.startswith(start)), "")
        words = shlex.split(line.replace("--folds 5", "--folds 2"))
        code, out, err = run(*words[1:], *shlex.split(more))
        assert code == 0, f"{line}\n{out}\n{err}"
    assert (tmp_path / "runs/folds/out_of_fold.csv").is_file()


@pytest.mark.parametrize("text", SPECS, ids=[str(k) for k in range(len(SPECS))])
def test_every_fragment_is_a_spec(text):
    spec = mip.parse(text + '[head]\nkind = "regression"\ncolumn = "price"\n')
    assert mip.parse(mip.dump(spec)) == spec


def test_the_net_that_is_proposed_is_named():
    assert f"`{mip.spec.library_net().backbone}` of torchvision" in PAGE
