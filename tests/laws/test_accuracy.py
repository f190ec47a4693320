"""How the specs are scored on real data: what is kept, and how the page is written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from attrs import evolve

import mip
from benchmarks.accuracy import CASES, figure, main, page, paired
from mip.spec import draft

ROOT = Path(__file__).parents[2]
DRAFTED = {
    "adult": "income",
    "california": "median_house_value",
    "cars": "MPG",
    "diabetes": "target",
    "houses-table": "price",
    "titanic": "Survived",
    "wine": "target",
}
"""The specs that are as `mip new` writes them, with their targets."""


def fake(name, case, data):
    errors = {"houses-table": [[0.2, 0.4], [0.3, 0.3]], "houses": [[0.1, 0.2], [0.2, 0.1]]}
    errors["houses-photos"] = [[0.3, 0.4], [0.4, 0.3]]
    scores = [[case.aim + k / 100, case.aim - k / 100] for k in range(2)]
    trees = {"LightGBM": {"scores": scores, "seconds": 0.62}} if case.trees else {}
    return {"scores": scores, "seconds": 1.6, "errors": errors.get(name, []), "trees": trees}


def test_every_case_has_its_spec():
    for case in CASES.values():
        mip.load_spec(ROOT / "specs" / f"{case.spec}.toml")


def test_results_are_kept_and_measured_once(tmp_path):
    file, seen = tmp_path / "all.json", []

    def measure(name, case, data):
        seen.append(name)
        return fake(name, case, data)

    message = ["--json", str(file)]
    assert main(["wine", *message], CASES, measure) == 0
    assert main(message, CASES, measure) == 0
    assert main(["wine", *message], CASES, measure) == 0
    assert seen == ["wine", *[name for name in CASES if name != "wine"], "wine"]
    assert json.loads(file.read_text()).keys() == CASES.keys()


def test_an_unknown_case_is_one_line_and_exit_2(tmp_path, capsys):
    assert main(["whine", "--json", str(tmp_path / "x.json")], CASES, fake) == 2
    assert capsys.readouterr().err.startswith("'whine' is not a case; did you mean 'wine'? (known")


def test_the_page_has_a_row_for_each_case(tmp_path):
    message = ["--json", str(tmp_path / "x.json"), "--page", str(tmp_path / "page.md")]
    assert main(message, CASES, fake) == 0
    text = (tmp_path / "page.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| [")]
    assert len(rows) == len(CASES)
    assert "| rmse | **47,507 ± 0** | 1.6 s | 47,507 ± 0, .6 s |" in text
    assert "| ≥ .925 |" in text
    assert "- photos read by a small net from scratch: -15.0% ± 5.0%, they help\n" in text
    assert "- photos read by a pretrained net: +5.0% ± 5.0%, within the noise\n" in text
    assert "paired row by row" not in page({"wine": fake("wine", CASES["wine"], None)})


def test_cases_without_results_keep_their_rows(tmp_path):
    file, kept = tmp_path / "page.md", tmp_path / "all.json"
    main(["--json", str(kept), "--page", str(file)], CASES, fake)
    before = file.read_text()
    again = ["wine", "--json", str(tmp_path / "wine.json"), "--page", str(file)]
    assert main(again, CASES, lambda *_: fake(*_) | {"seconds": 70}) == 0
    lines = zip(before.splitlines(), file.read_text().splitlines(), strict=True)
    changed = [(old, new) for old, new in lines if old != new]
    assert changed == [(old, old.replace("| 1.6 s |", "| 70 s |")) for old, _ in changed]
    assert len(changed) == 1


def test_two_models_are_compared_row_by_row():
    gap, error = paired([[0.1, 0.3, 0.2]], [[0.2, 0.4, 0.3]])
    assert (gap, error) == (pytest.approx(0.1), pytest.approx(0.0))
    assert figure(-0.5, CASES["wine"]) == "-.500"


@pytest.mark.skipif("MIP_DATA" not in os.environ, reason="MIP_DATA names no folder of real data")
@pytest.mark.parametrize("name", DRAFTED)
def test_the_plain_specs_are_what_mip_new_writes(name):
    table = mip.read(Path(os.environ["MIP_DATA"]) / CASES[name].table)
    photos = {"bathroom", "bedroom", "frontal", "kitchen"}
    # Without its folder, in which the ids name photos.
    table = evolve(table.select(set(table.columns) - photos), root=None)
    text = draft(table, DRAFTED[name], f"../data/{CASES[name].table}")
    kept = (ROOT / "specs" / f"{name}.toml").read_text()
    assert kept.endswith(text.partition("\n")[2])
    assert mip.parse(kept) == mip.parse(text)
