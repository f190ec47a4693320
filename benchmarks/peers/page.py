"""The page about speed: what was measured against loops by hand, and against peers."""

from __future__ import annotations

import ast
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.workloads import TEXTS

FOLDER = Path(__file__).parent

Found = Mapping[str, Any]
"""What a file keeps of a `Result` or a `Measured`."""


def page(loops: Sequence[Found], peers: Sequence[Found]) -> str:
    """Write the results as a page of Markdown."""
    ratios = [each for each in loops if "ratio" in each]
    limits = [each for each in loops if "value" in each]
    names, now = dict.fromkeys(each["anchor"] for each in peers), datetime.now(UTC)
    version = torch.__version__.partition("+")[0]
    return f"""# The speed of training

How fast training is, against loops written by hand and against other libraries. The command is

    make peers

Numbers are ratios: how many times as fast as the other, the median of rounds in which both take
turns, and in brackets its quartiles. Below 1 the other is faster. What else the machine does
troubles both, and the quartiles tell how far a ratio can be trusted. Our specs leave out what the
others do not do either: clipping, a schedule, and words shown as unseen.

## Against loops written by hand

The loop is what an expert writes for this one network: rows gathered with `index_select`, one
forward and one backward pass, torch's own optimizer, and nothing that watches unless it is said.

| name | ours | the loop | times as fast | aim |
|---|---|---|---|---|
{_lines(_against(each) for each in ratios)}

What it takes, the median and its quartiles:

| name | what | found | at most |
|---|---|---|---|
{_lines(_limit(each) for each in limits)}

## Against other libraries

Each trains rows that are in memory already, by a model that is built already: what is timed is its
own call that fits, on one thread. Networks, batches and steps are the same; a contest in which
steps differ, or parameters by more than 1%, does not count. Adam and AdamW are in the form in which
the library has them by default, which for ours is torch's fused one. Ours writes its history and
has a bar and a line an epoch, as `mip fit` has, but keeps no checkpoints.

{_lines(f"- `{name}`: {text}." for name, text in TEXTS.items())}

| times as fast as | {" | ".join(TEXTS)} |
|---|{"---|" * len(TEXTS)}
{_lines(_row(peer, peers) for peer in names)}

{_lines(map(_how, names))}

Measured on {now:%d %B %Y} with {os.cpu_count()} cores of {platform.machine()}, torch
{version}, and a load of {os.getloadavg()[2]:.1f} in the quarter of an hour before this was written,
of which 1 is the contest's own.
"""


def _lines(rows: Any) -> str:
    return "\n".join(rows)


def _against(found: Found) -> str:
    about = f"| {found['name']} | {found['work']} | {found['anchor']}"
    return f"{about} | {_spread(found, 'ratio')} | {found['aim']:g} |"


def _limit(found: Found) -> str:
    spread, most = _spread(found, "value"), f"{found['aim']:g} {found['unit']}"
    return f"| {found['name']} | {found['work']} | {spread} {found['unit']} | {most} |"


def _row(peer: str, peers: Sequence[Found]) -> str:
    own = {each["work"]: _spread(each, "ratio") for each in peers if each["anchor"] == peer}
    cells = " | ".join(own.get(text, "") for text in TEXTS.values())
    return f"| {_called(peer)} | {cells} |"


def _spread(found: Found, name: str) -> str:
    return f"**{found[name]:.2f}** ({found['low']:.2f} to {found['high']:.2f})"


def _called(peer: str) -> str:
    return (FOLDER / peer / "requirements.txt").read_text().split()[0].replace("==", " ")


def _how(peer: str) -> str:
    told = ast.get_docstring(ast.parse((FOLDER / peer / "contenders.py").read_text()))
    return f"- {' '.join((told or '').split())}"
