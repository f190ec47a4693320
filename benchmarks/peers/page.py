"""The page on speed: results against hand-written loops and against peers."""

from __future__ import annotations

import ast
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.workloads import DESCRIPTIONS

FOLDER = Path(__file__).parent

Saved = Mapping[str, Any]
"""A `Result` or a `LimitResult` as read from JSON."""


def page(loops: Sequence[Saved], tutorials: Sequence[Saved], experts: Sequence[Saved]) -> str:
    """Format the results as a page of Markdown."""
    ratios = [result for result in loops if "ratio" in result]
    limits = [result for result in loops if "value" in result]
    peers = dict.fromkeys(result["baseline"] for result in tutorials)
    now, version = datetime.now(UTC), torch.__version__.partition("+")[0]
    return f"""# Training speed

How fast mip trains, compared with hand-written loops and with other libraries. To measure it, run

    make peers

A ratio says how many times as fast mip is: the median over rounds in which both take turns, with
quartiles in parentheses. Below 1, mip is slower. Other work on the machine slows both down; the
quartiles show how reliable a ratio is. Our specs turn off what the other side does not do either:
gradient clipping, a learning-rate schedule, and categories replaced at random by the unseen one.

## Compared with hand-written loops

The loop is what an expert would write for this one network: rows gathered with `index_select`, one
forward and one backward pass, torch's own optimizer, and no logging or validation unless mentioned.

| name | mip | loop | times as fast | aim |
|---|---|---|---|---|
{_join(map(_ratio_row, ratios))}

Costs, as medians with quartiles:

| name | cost of | measured | aim |
|---|---|---|---|
{_join(map(_limit_row, limits))}

## Compared with other libraries

The rows are in memory and the model is built in advance: only each library's own call to fit is
timed, on one thread. Networks, batch sizes and numbers of steps are the same; a contest is rejected
if the numbers of steps differ, or the numbers of parameters by more than 1%.

{_join(f"- `{name}`: {description}." for name, description in DESCRIPTIONS.items())}

### As in their introductory tutorials

Adam and AdamW run with each library's defaults; for mip that is torch's fused implementation. Our
fit writes a history file and shows a progress bar and a line per epoch, as `mip fit` does, but
saves no checkpoints.

| times as fast as | {" | ".join(DESCRIPTIONS)} |
|---|{"---|" * len(DESCRIPTIONS)}
{_join(_peer_row(peer, tutorials) for peer in peers)}

### As an expert would use them

Progress bars, logging, recorders and checkpoints are turned off where possible. The optimizer is
torch's fused implementation (Keras compiles its own), and each batch is gathered with one indexing
operation where the library allows it. Every contender runs both eagerly and compiled by
torch.compile, with compilation finished before timing begins; the faster variant of each counts.
The aim is to be 1.2 times as fast. {_missed_aims(experts)}

| name | mip | other library | times as fast | aim |
|---|---|---|---|---|
{_join(map(_ratio_row, experts))}

### How each library is used

{_join(map(_usage, peers))}

Measured on {now:%d %B %Y} with {os.cpu_count()} cores of {platform.machine()} and torch {version}.
The load average over the 15 minutes before this page was written was {os.getloadavg()[2]:.1f}, of
which the benchmarks account for 1.
"""


def _join(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def _ratio_row(result: Saved) -> str:
    cells = [result["name"], result["work"], result["baseline"], _spread(result, "ratio")]
    return f"| {' | '.join(cells)} | {result['aim']:g} |"


def _limit_row(result: Saved) -> str:
    unit = result["unit"]
    cells = [result["name"], result["work"], f"{_spread(result, 'value')} {unit}"]
    return f"| {' | '.join(cells)} | ≤ {result['aim']:g} {unit} |"


def _peer_row(peer: str, tutorials: Sequence[Saved]) -> str:
    ratios = {
        result["work"]: _spread(result, "ratio")
        for result in tutorials
        if result["baseline"] == peer
    }
    cells = " | ".join(ratios.get(description, "") for description in DESCRIPTIONS.values())
    requirement = (FOLDER / peer / "requirements.txt").read_text().split()[0]
    return f"| {requirement.replace('==', ' ')} | {cells} |"


def _spread(result: Saved, key: str) -> str:
    return f"**{result[key]:.2f}** ({result['low']:.2f} to {result['high']:.2f})"


def _missed_aims(experts: Sequence[Saved]) -> str:
    missed = [result for result in experts if result["ratio"] < result["aim"]]
    names = ", ".join(f"`{result['name']}` ({result['ratio']:.2f})" for result in missed)
    return f"It is missed in {names}." if missed else "It is reached in all contests."


def _usage(peer: str) -> str:
    docstring = ast.get_docstring(ast.parse((FOLDER / peer / "contenders.py").read_text()))
    return f"- {' '.join((docstring or '').split())}"
