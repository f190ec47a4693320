"""The notebook runs from top to bottom, and its plots are there; hooks show in place."""

from __future__ import annotations

import re
from base64 import b64decode
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

TOUR = Path(__file__).parents[2] / "notebooks" / "tour.ipynb"

WATCHED = """
import time, torch
x = torch.ones(8, 3)
net, one = torch.nn.Linear(3, 1), mip.sgd(0.1)
step = mip.train_step(net, torch.nn.functional.mse_loss, one)
slow = lambda event: time.sleep(0.06) if event.name == "before_batch" else None
hooks = [slow, mip.progress(12), mip.hooks.plot_history("history.png")]
batches = pipe((x, x[:, :1]), mip.batch(2))
_ = mip.fit(step, batches, mip.init(net, one), epochs=3, hooks=hooks)
"""


SMALLER = {"n_rows=400": "n_rows=40", "epochs = 15": "epochs = 1"}
"""What makes the notebook quick to run."""


def smaller(source: str) -> str:
    for old, new in SMALLER.items():
        source = source.replace(old, new)
    return source


@pytest.fixture(scope="module", params=["small", pytest.param("whole", marks=pytest.mark.slow)])
def tour(request, tmp_path_factory) -> tuple[list, list, list[str]]:
    """The notebook after it has run, with a cell more, and the messages of all."""
    notebook = nbformat.read(TOUR, as_version=4)
    for cell in notebook.cells:
        cell.source = smaller(cell.source) if request.param == "small" else cell.source
    notebook.cells.append(nbformat.v4.new_code_cell(WATCHED))
    folder = str(tmp_path_factory.mktemp("notebook"))
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": folder}})
    kinds, heard = [], client.process_message
    client.process_message = lambda msg, *rest: kinds.append(msg["msg_type"]) or heard(msg, *rest)
    client.execute()
    assert (Path(folder) / "history.png").is_file()
    *cells, watched = notebook.cells
    return cells, watched.outputs, kinds


def test_the_tour_can_be_made_smaller():
    source = TOUR.read_text()
    assert all(old in source for old in SMALLER)


def test_the_tour_ends_with_an_error_near_the_noise(tour):
    text = "".join(out.get("text", "") for cell in tour[0] for out in cell.get("outputs", []))
    assert "mean absolute percentage error" in text


def test_the_tour_draws_its_plots(tour):
    outputs = [out for cell in tour[0] for out in cell.get("outputs", [])]
    assert sum("image/png" in out.get("data", {}) for out in outputs) == 3


def test_a_bar_and_a_picture_stay_below_the_cell_as_the_fit_ended(tour):
    bar, picture = tour[1]  # and nothing is printed
    assert set(bar["data"]) == {"text/plain"}
    assert re.fullmatch(r"fit loss \S+ ━+ 12/12 0:00:0\d", bar["data"]["text/plain"])
    assert b64decode(picture["data"]["image/png"]).startswith(b"\x89PNG")


def test_they_are_replaced_and_not_appended(tour):
    # The bar five times or more, and the picture at the end.
    assert tour[2].count("update_display_data") >= 5
