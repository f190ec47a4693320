"""The curves of a history: what is drawn is what was measured, whatever that is."""

from __future__ import annotations

import sys
from itertools import accumulate

import numpy as np
import pytest
import torch
from conftest import bits
from hypothesis import given
from hypothesis import strategies as st
from linear import line, scored

import mip
import mip.hooks.history
from mip import plots
from mip.errors import FileError, MipError
from mip.hooks import plot_history
from mip.train import History


def history(epochs, steps=2, begun=0, metrics=("loss", "valid/loss"), value=float):
    """A history of so many epochs of so many steps, and of some of an epoch begun."""
    rows = [
        {"epoch": k, "step": steps * (k + 1), **{name: value(k) for name in metrics}}
        for k in range(epochs)
    ]
    count = torch.arange(1, steps * epochs + begun + 1)
    losses = torch.tensor([value(k) for k in range(len(count))])
    return History(tuple(rows), {"loss": losses, "step": count, "rows": count})


def drawn(axes):
    """The lines of a panel by label."""
    return {line.get_label(): line.get_xydata() for line in axes.get_lines()}


def titles(figure):
    return [axes.get_title("left") for axes in figure.axes if axes.get_visible()]


def test_each_metric_has_a_panel_with_a_line_for_each_part():
    names = ("loss", "grad_norm", "train/mae", "valid/loss", "valid/mae", "valid/a.auc")
    figure = plots.history(history(3, metrics=names), lambda step: 0.1)
    # What only training measures comes last, before the learning rate.
    assert titles(figure) == ["loss", "mae", "a.auc", "grad_norm", "learning rate"]
    label = "train, mean of its steps"
    parts = [set(drawn(axes)) - {"each step"} for axes in figure.axes[:4]]
    assert parts == [{label, "valid"}, {"train", "valid"}, {"valid"}, {label}]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        label, "valid", "each step", "train",
    ]  # fmt: skip


def test_what_is_drawn_is_what_was_measured():
    figure = plots.history(history(2, steps=2, begun=1), lambda step: 10.0 - step)
    loss, rate = map(drawn, figure.axes[:2])
    assert loss["train"].tolist() == loss["valid"].tolist() == [[1, 0], [2, 1]]
    assert loss["each step"].tolist() == [[0.5, 0], [1, 1], [1.5, 2], [2, 3], [2.5, 4]]
    # The first step, after which the count is 1, is taken with the rate of step 0.
    assert next(iter(rate.values())).tolist() == [[0.5, 10], [1, 9], [1.5, 8], [2, 7], [2.5, 6]]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 9))
def test_epochs_of_any_lengths_end_at_whole_numbers(lengths, begun):
    ends = list(accumulate(lengths))
    rows = tuple({"epoch": k, "step": end, "loss": 1.0} for k, end in enumerate(ends))
    steps = torch.arange(1, ends[-1] + begun + 1)
    measured = History(rows, {"loss": torch.ones(len(steps)), "step": steps})
    positions = drawn(plots.history(measured).axes[0])["each step"][:, 0]
    assert [positions[end - 1] for end in ends] == list(range(1, len(ends) + 1))
    assert (np.diff(positions) > 0).all()
    assert positions[-1] <= len(ends) + 1


def test_the_first_steps_do_not_flatten_all_else():
    measured = history(3, steps=100, value=lambda k: 1000.0 if k == 1 else 1.0)
    measured = History(
        ({**measured.epochs[0], "loss": 1.0}, {**measured.epochs[0], "loss": 2.0}), measured.steps
    )
    assert plots.history(measured).axes[0].get_ylim()[1] < 3


@pytest.mark.parametrize("value", [0.0, -1.0, 1e30, float("nan"), float("inf")])
@pytest.mark.parametrize(("epochs", "scale"), [(0, "log"), (1, "linear"), (2, "log")])
def test_anything_measured_can_be_drawn(epochs, value, scale):
    measured = history(epochs, begun=1, value=lambda k: value)
    figure = plots.history(measured, scale=scale)
    assert figure.axes[0].get_yscale() == ("linear" if value <= 0 else scale)
    assert plots.render(figure).startswith(b"\x89PNG")


def test_a_history_without_steps_is_drawn():
    measured = History(({"epoch": 0, "step": 2, "loss": 1.0},))
    assert titles(plots.history(measured, lambda step: 0.1)) == ["loss", "learning rate"]


def rated(decay=0.01):
    rows = [{"loss": 1.0 / k, "lr": 0.1, "weight_decay": decay, "valid/loss": 2.0 / k}
            for k in (1, 2)]  # fmt: skip
    steps = {name: torch.tensor([row[name] for row in rows]) for name in ("loss", "weight_decay")}
    epochs = tuple({"epoch": k, "step": k + 1, **row} for k, row in enumerate(rows))
    return History(epochs, {**steps, "step": torch.tensor([1, 2])})


def test_a_rate_that_never_changes_has_a_panel_only_on_request():
    assert titles(plots.history(rated())) == ["loss", "lr"]
    assert titles(plots.history({"a": rated(), "b": rated(0.1)})) == ["loss", "lr"]
    assert titles(plots.history(rated(), metrics=["weight_decay"])) == ["weight_decay"]
    changing = History(rated().epochs, {**rated().steps, "weight_decay": torch.tensor([0.1, 0.2])})
    assert {*titles(plots.history(changing))} == {"loss", "lr", "weight_decay"}
    assert list(plots.history_by_metric(rated())) == ["loss", "lr"]


def test_a_line_is_selected_by_its_name_in_the_history():
    measured = rated()
    [panel] = plots.history(measured, metrics=["valid/loss"]).axes
    assert set(drawn(panel)) == {"valid"}
    [panel] = plots.history(measured, metrics=["loss", "valid/loss"]).axes
    assert {"train", "valid", "each step"} == set(drawn(panel))
    with pytest.raises(MipError, match=r"no history has the metric 'valid/los'.*'valid/loss'"):
        plots.history(measured, metrics=["valid/los"])


def test_several_runs_without_other_parts_have_plain_lines():
    rows = ({"epoch": 0, "step": 1, "loss": 2.0}, {"epoch": 1, "step": 2, "loss": 1.0})
    [panel] = plots.history({"a": History(rows), "b": History(rows)}).axes
    assert {line.get_linestyle() for line in panel.get_lines()} == {"-"}


# The hook.


def test_a_run_has_one_picture_that_is_whole(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        mip.hooks.history,
        "draw",
        lambda *arguments, **k: calls.append(arguments) or plots.history(*arguments, **k),
    )
    step, batches, state = line()
    hooks = [scored([2.0, 1.0]), plot_history(tmp_path / "a.png", scale="log")]
    watched = mip.fit(step, batches, state, epochs=2, hooks=hooks)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert len(calls) == 1
    assert [row["valid/loss"] for row in calls[-1][0].epochs] == [2.0, 1.0]
    assert bits(watched) == bits(mip.fit(step, batches, state, epochs=2))


def test_drawing_takes_a_twentieth_of_the_time(monkeypatch, tmp_path):
    now, when = [0.0], []

    def draw(history, *_, **options):
        when.append(len(history.epochs))
        now[0] += 0.5
        return b""

    monkeypatch.setattr(mip.hooks.history.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(mip.hooks.history, "draw", draw)
    monkeypatch.setattr(mip.hooks.history, "render", lambda drawing, suffix: drawing)
    step, batches, state = line()
    second = lambda event: now.append(now.pop() + 1) if event.name == "before_epoch" else None  # noqa: E731
    mip.fit(step, batches, state, epochs=25, hooks=[second, plot_history(tmp_path / "a.png")])
    assert when == [2, 12, 22, 25]


def test_a_fit_that_fails_at_once_has_no_picture(tmp_path):
    step, batches, state = line()

    def fails(event):
        raise KeyError("no")

    with pytest.raises(KeyError):
        mip.fit(step, batches, state, epochs=1, hooks=[fails, plot_history(tmp_path / "a.png")])
    assert not list(tmp_path.iterdir())


def test_a_picture_that_cannot_be_written_says_whose_it_is(tmp_path):
    step, batches, state = line()
    (tmp_path / "a").touch()
    with pytest.raises(FileError, match=r"b\.png: cannot be written") as caught:
        mip.fit(step, batches, state, epochs=1, hooks=[plot_history(tmp_path / "a" / "b.png")])
    assert any(note.startswith("in the hook plot_history at ") for note in caught.value.__notes__)


def test_outside_of_a_notebook_a_file_is_needed():
    with pytest.raises(
        MipError, match=r"outside of a notebook plot_history needs a file: plot_history\('"
    ):
        plot_history()


def test_without_matplotlib_the_cure_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mip.plots.canvas", None)
    with pytest.raises(
        MipError, match=r"needs matplotlib: pip install 'mixed-input-pipelines\[plot\]'"
    ):
        plot_history(tmp_path / "a.png")


def test_steps_that_were_not_skipped_have_no_panel():
    steps = {name: torch.zeros(2) for name in ("loss", "skipped", "rows")}
    history = History((), {**steps, "step": torch.tensor([1, 2])})
    assert [axes.get_title("left") for axes in plots.history(history).axes] == ["loss"]
