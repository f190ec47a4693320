"""The distinct cells of a column say of it what all of its cells say."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mip.data import ColumnFormat, from_columns
from mip.errors import DataError
from mip.spec.drafts.distinct_cells import distinct_cells

TEXTS = [
    "",
    " ",
    "a",
    " a",
    "Ulm",
    "3",
    "3.0",
    "3.00",
    " 3",
    "0x",
    "-",
    "NA",
    "1e39",
    "\u00e4",
    "\u00a03",
]
OBJECTS = st.sampled_from([*TEXTS, None, 3, 3.0, True, float("nan")])
NUMBERS = st.sampled_from([0.0, -0.0, 1.5, 3.0, float("nan"), float("inf")])
COLUMNS = st.one_of(
    st.lists(st.sampled_from(TEXTS), min_size=1, max_size=12),
    st.lists(OBJECTS, min_size=1, max_size=12),
    st.lists(NUMBERS, min_size=1, max_size=12),
)


def parsed(table):
    try:
        return table.numbers("x")
    except DataError:
        return None


@given(column=COLUMNS, na_values=st.sampled_from([(), ("3",), ("a", "Ulm")]))
def test_they_are_counted_as_all_cells_are(column, na_values):
    table = from_columns({"x": column})
    formatted = table.with_formats({"x": ColumnFormat(na_values=na_values)})
    for rows, cells in (
        (table, distinct_cells(table)["x"]),
        (formatted, distinct_cells(table)["x"].with_format(formatted.formats["x"])),
    ):
        expected = Counter(rows.texts("x").tolist())
        del expected[""]
        assert list(cells.count(cells.texts()).items()) == list(expected.items())
        values = parsed(rows)
        assert (values is None) == (cells.numbers is None)
        if values is not None:
            every = np.repeat(cells.numbers, cells.counts)
            assert np.array_equal(
                np.sort(every[~np.isnan(every)]), np.sort(values[~np.isnan(values)])
            )


@pytest.mark.parametrize("cells", [["b", None, "a", "b"], [2.5, float("nan"), 1.0, 2.5]])
def test_each_is_found_in_the_first_row_that_has_it(cells):
    found = distinct_cells(from_columns({"x": cells, "y": range(4)}))["x"]
    assert found.firsts.tolist() == [0, 2]
    assert found.counts.tolist() == [2, 1]
    assert found.select(np.array([False, True])).values() == cells[2:3]
    assert found.row_label(1) == "2"
