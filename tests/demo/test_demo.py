"""The demo: drawn the same each time, priced by its formula, with oracles that no model beats."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest
from attrs import evolve

import mip
from mip.demo import comparison, files, fronts, gardens, houses
from mip.model import check_columns

SPECS = Path(__file__).parents[2] / "specs" / "demo"
NAMES = ("both", "pictures", "table")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    mip.demo.draw(folder, n_rows=60)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.slow
def test_drawing_twice_gives_equal_bytes_and_another_seed_does_not(drawn, tmp_path):
    mip.demo.draw(tmp_path / "again", n_rows=60)
    assert contents(tmp_path / "again") == contents(drawn)
    mip.demo.draw(tmp_path / "other", n_rows=2, seed=1)
    one, other = contents(drawn), contents(tmp_path / "other")
    assert all(one[name] != other[name] for name in one.keys() & other.keys())


def test_fewer_rows_are_the_first_of_more(drawn, tmp_path):
    mip.demo.draw(tmp_path, n_rows=5)
    for name, data in contents(tmp_path).items():
        assert contents(drawn)[name].startswith(data)


def test_the_price_is_the_formula_to_the_euro(drawn):
    rows, truth = mip.read(drawn / "houses.csv"), mip.read(drawn / "truth.csv")
    terms = [truth.numbers(name) for name in ("table", "pictures", "noise")]
    price = rows.numbers("price")
    known = np.isfinite(price)
    assert known.sum() > 50
    assert np.array_equal(price[known], np.round(np.exp(houses.BASE + sum(terms)))[known])


def test_the_terms_are_those_of_the_docstring():
    day = datetime.date(2021, 11, 30)
    facts = {"area": 110.0, "age": 60, "rooms": 4, "district": "lakeside", "sold": day}
    shown = {"floors": 3, "roof": "slate", "trees": 4, "water": "none"}
    house = houses.House(row=0, **facts, **shown, noise=0.01)
    assert house.table == pytest.approx(-0.4 * 0.26 + 0.34 - 0.03)
    assert house.pictures == pytest.approx(0.25 + 0.22 + 0.16 - 0.15)
    assert house.price == round(np.exp(houses.BASE + house.table + house.pictures + 0.01))


def test_the_terms_are_independent_and_table_and_pictures_weigh_the_same():
    drawn = [houses.make_house(row) for row in range(2000)]
    terms = np.array([[house.table, house.pictures, house.noise] for house in drawn])
    assert terms.std(axis=0) == pytest.approx([0.35, 0.35, houses.NOISE], rel=0.05)
    assert np.abs(np.corrcoef(terms.T)[~np.eye(3, dtype=bool)]).max() < 0.05
    assert np.abs(terms.mean(axis=0)).max() < 0.03


@pytest.mark.parametrize("picture", [fronts.draw_front, gardens.draw_garden])
def test_a_picture_tells_nothing_of_the_table(picture):
    house = houses.make_house(0)
    changed = evolve(house, area=20.0, age=99, rooms=1, district="mills", noise=0.5)
    assert picture(house).tobytes() == picture(changed).tobytes()


def test_every_term_of_the_pictures_can_be_seen():
    def front(house):
        return fronts.draw_front(house).tobytes()

    def garden(house):
        return gardens.draw_garden(house).tobytes()

    house = evolve(houses.make_house(0), floors=1, roof="worn", trees=0, water="none")
    for change in ({"floors": 2}, {"roof": "slate"}):
        other = evolve(house, **change)
        assert front(house) != front(other)
        assert garden(house) == garden(other)
    for change in ({"trees": 1}, {"water": "pond"}, {"water": "pool"}):
        other = evolve(house, **change)
        assert garden(house) != garden(other)
        assert front(house) == front(other)


def test_some_cells_and_pictures_are_missing():
    rows = [files.table_cells(houses.make_house(row)) for row in range(800)]
    missing = {name: sum(cells[name] == "" for cells in rows) for name in rows[0]}
    assert missing["rooms"] == missing["sold"] == 0
    assert all(8 <= missing[name] <= 32 for name in ("area", "age"))
    assert all(2 <= missing[name] <= 16 for name in ("district", "front", "garden"))
    assert 2 <= missing["price"] <= 6


def test_a_picture_is_there_exactly_where_it_is_named(drawn):
    rows = mip.read(drawn / "houses.csv")
    named = {*rows.texts("front"), *rows.texts("garden")} - {""}
    assert named == {name for name in contents(drawn) if name.startswith("images/")}
    assert len(named) < 2 * len(rows)


def test_errors_fall_with_what_the_oracle_knows(drawn):
    scores = mip.demo.oracle_scores(drawn, mip.read(drawn / "houses.csv").take(range(10, 50)))
    for metric in ("mape", "mae"):
        single = min(scores[f"table/{metric}"], scores[f"pictures/{metric}"])
        assert scores[f"both/{metric}"] < single / 2
    assert 0.04 < scores["both/mape"] < 0.09
    assert 0.2 < scores["table/mape"] < 0.4
    assert 0.2 < scores["pictures/mape"] < 0.4


def test_no_constant_goes_below_the_floor(drawn):
    rows, truth = mip.read(drawn / "houses.csv"), mip.read(drawn / "truth.csv")
    price, known = rows.numbers("price"), np.isfinite(rows.numbers("price"))
    guess = np.exp(houses.BASE + truth.numbers("table"))[known]
    factors = np.exp(np.linspace(-1, 1, 2001))[:, None]
    mape = np.abs(factors * guess / price[known] - 1).mean(axis=1).min()
    mae = np.abs(factors * guess - price[known]).mean(axis=1).min()
    scores = mip.demo.oracle_scores(drawn, rows)
    assert scores["table/mape"] <= mape == pytest.approx(scores["table/mape"], rel=1e-3)
    assert scores["table/mae"] <= mae == pytest.approx(scores["table/mae"], rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_the_specs_fit_the_table(name, drawn):
    spec = mip.load_spec(SPECS / f"{name}.toml")
    check_columns(spec, mip.read(drawn / "houses.csv"))
    assert comparison.inputs_of(spec) == name
    assert (SPECS / spec.data.table).resolve() == (SPECS.parents[1] / "demo/houses.csv").resolve()


def test_the_specs_differ_only_in_what_they_read_and_for_how_long():
    both, pictures, table = (mip.load_spec(SPECS / f"{name}.toml") for name in NAMES)
    assert dict(both.branch) == {**pictures.branch, **table.branch}
    assert both.head == pictures.head == table.head
    assert both.data == pictures.data == table.data
    assert {evolve(spec.train, epochs=1) for spec in (both, pictures, table)} == {
        evolve(both.train, epochs=1)
    }


@pytest.fixture(scope="module")
def small(drawn):
    """The demo's specs, shrunk, beside the data."""
    less = {"data.table": "houses.csv", "train.epochs": 2}
    pixels = {"branch.photos.size": 16, "branch.photos.base_channels": 4}
    paths = []
    for name in NAMES:
        changes = less if name == "table" else {**less, **pixels}
        paths.append(drawn / f"{name}.toml")
        paths[-1].write_text(mip.dump(mip.load_spec(SPECS / f"{name}.toml", changes=changes)))
    return paths


def test_compare_fits_scores_and_writes(small, tmp_path):
    rows = mip.demo.compare(small, tmp_path)
    assert tuple(row.name for row in rows) == NAMES
    assert all(row.mape > row.oracle_mape > 0 and row.mae > 0 and row.seconds > 0 for row in rows)
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")
    wanted = {"history.jsonl", "model.safetensors", "predictions.csv", "spec.toml"}
    for row in rows:
        assert {path.name for path in row.files} == wanted
        assert all(path.parent == tmp_path / row.name for path in row.files)
    assert mip.demo.results_table(rows).row_count == 3


def test_predictions_are_those_of_the_written_model(small, tmp_path):
    (row,) = mip.demo.compare(small[:1], tmp_path)
    predictions = mip.read(tmp_path / "both" / "predictions.csv")
    value, target = predictions.numbers("value"), predictions.numbers("target")
    assert float(np.abs(value / target - 1).mean()) == pytest.approx(row.mape, rel=1e-5)
    houses = mip.read(small[0].parent / "houses.csv").take(predictions.numbers("row").astype(int))
    again = mip.load(tmp_path / "both" / "model.safetensors")(houses)
    assert again["value"].to_numpy() == pytest.approx(value, rel=1e-6)


def test_two_specs_of_one_name_are_refused(small, tmp_path):
    with pytest.raises(mip.MipError, match="two specs have the same name"):
        mip.demo.compare([small[0], tmp_path / small[0].name], tmp_path)
