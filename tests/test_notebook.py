"""The notebook runs from top to bottom, and its plots are there."""

from __future__ import annotations

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
