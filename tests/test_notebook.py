"""The notebook runs from top to bottom, and its plots are there; hooks show in place."""

from __future__ import annotations

import re
from base64 import b64decode
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

TOUR = Path(__file__).parent.parent / "notebooks" / "tour.ipynb"


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    notebook = nbformat.read(TOUR, as_version=4)
    folder = str(tmp_path_factory.mktemp("notebook"))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": folder}}).execute()
    return notebook


def test_the_tour_ends_with_an_error_near_the_noise(tour):
    text = "".join(out.get("text", "") for cell in tour.cells for out in cell.get("outputs", []))
    assert "mean absolute percentage error" in text


def test_the_tour_draws_its_plots(tour):
    outputs = [out for cell in tour.cells for out in cell.get("outputs", [])]
    assert sum("image/png" in out.get("data", {}) for out in outputs) == 3


FIT = """
import time, torch, mip
from toolz import pipe
x = torch.ones(8, 3)
net, one = torch.nn.Linear(3, 1), mip.sgd(0.1)
batches = pipe((x, x[:, :1]), mip.batch(2))
step = mip.train_step(net, torch.nn.functional.mse_loss, one)
slow = lambda event: time.sleep(0.06) if event.name == "before_batch" else None
hooks = [slow, mip.progress(12), mip.hooks.plots("history.png")]
state = mip.fit(step, batches, mip.init(net, one), epochs=3, hooks=hooks)
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[list, list]:
    """What a fit in a notebook shows, and each message on the way to it."""
    folder, messages = str(tmp_path_factory.mktemp("shown")), []
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(FIT)])
    client = NotebookClient(notebook, timeout=100, resources={"metadata": {"path": folder}})
    heard = client.process_message

    def process_message(message, *rest):
        messages.append(message)
        return heard(message, *rest)

    client.process_message = process_message
    client.execute()
    assert (Path(folder) / "history.png").is_file()
    return notebook.cells[0].outputs, messages


def test_a_bar_and_a_picture_stay_below_the_cell_as_the_fit_ended(shown):
    # The kernel itself may warn on standard error before the cell runs.
    bar, picture = [out for out in shown[0] if out.output_type != "stream"]
    assert set(bar["data"]) == {"text/plain"}
    assert re.fullmatch(r"fit loss \S+ ━+ 12/12 0:00:0\d", bar["data"]["text/plain"])
    assert b64decode(picture["data"]["image/png"]).startswith(b"\x89PNG")


def test_they_are_replaced_and_not_appended(shown):
    kinds = [message["msg_type"] for message in shown[1]]
    assert kinds.count("display_data") == 2
    assert kinds.count("update_display_data") >= 4


def test_nothing_is_printed(shown):
    text = "".join(out.text for out in shown[0] if out.output_type == "stream")
    assert not [line for line in text.splitlines() if "IPKernelApp" not in line]
