"""On the demo, whose prices follow a formula, effects are those of the formula."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import mip
from mip.demo import draw
from mip.explain import importance, shapley_rows

ROOT = Path(__file__).parents[2]
USELESS = '\n[branch.sold]\nkind = "datetime"\ncolumns = ["sold"]\n'


@pytest.mark.slow
def test_branches_have_the_effects_of_their_parts_of_the_price(tmp_path):
    draw(tmp_path, 800)
    text = (ROOT / "specs/demo/both.toml").read_text().replace("../../demo/", "")
    (tmp_path / "both.toml").write_text(text.replace("\n[head]", f"{USELESS}\n[head]"))
    spec = mip.load_spec(tmp_path / "both.toml")
    table, _ = mip.clean(spec, mip.read(tmp_path / "houses.csv"))
    train, valid, test = mip.parts(spec, table)
    model = mip.run(spec, train, valid).predict
    found = shapley_rows(model, test, train, scale="logit")
    effects = found.pivot(index="row", columns="branch", values="effect")
    truth = pd.read_csv(tmp_path / "truth.csv", index_col="row").loc[effects.index]
    assert effects["facts"].corr(truth["table"]) >= 0.9
    assert effects["photos"].corr(truth["pictures"]) >= 0.9
    assert effects["sold"].std() < 0.1 * effects["facts"].std()
    of_branches = importance(model, test).query("metric == 'loss' and kind == 'branch'")
    measured = of_branches.set_index("name")["importance"]
    assert measured["sold"] < 0.05 * measured["facts"]
