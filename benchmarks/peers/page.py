"""The page about speed: what was measured against loops by hand, and against peers."""

from __future__ import annotations

import ast
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.workloads import TEXTS

FOLDER = Path(__file__).parent

Found = Mapping[str, Any]
"""What a file keeps of a `Result` or a `Measured`."""


def page(loops: Sequence[Found], tutorials: Sequence[Found], experts: Sequence[Found]) -> str:
    """Write the results as a page of Markdown."""
    ratios = [each for each in loops if "ratio" in each]
    limits = [each for each in loops if "value" in each]
    peers = dict.fromkeys(each["anchor"] for each in tutorials)
    now, version = datetime.now(UTC), torch.__version__.partition("+")[0]
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
{_lines(map(_against, ratios))}

What it takes, the median and its quartiles:

| name | what | found | at most |
|---|---|---|---|
{_lines(map(_limit, limits))}

## Against other libraries

Each library trains rows that are in memory already with a model that is built already: only its own
call that fits is timed, on one thread. Networks, batches and steps are the same; a contest in which
the numbers of steps differ, or those of parameters by more than 1%, does not count.

{_lines(f"- `{name}`: {text}." for name, text in TEXTS.items())}

### As in their first tutorials

Adam and AdamW are what the library uses by default, which for ours is torch's fused one. Ours
writes its history and has a bar and a line an epoch, as `mip fit` has, but keeps no checkpoints.

| times as fast as | {" | ".join(TEXTS)} |
|---|{"---|" * len(TEXTS)}
{_lines(_row(peer, tutorials) for peer in peers)}

### As their experts run them

Bars, logs, recorders and checkpoints are off wherever they can be. The optimizer is torch's fused
one (Keras compiles its own), and a batch of rows is indexed at once wherever the library allows it.
Each contender is tried eagerly and compiled by torch.compile, which has compiled before anything is
timed, and its faster form counts, ours and the other's alike. The aim is to be 1.2 times as fast.
{_behind(experts)}

| name | ours | the other | times as fast | aim |
|---|---|---|---|---|
{_lines(map(_against, experts))}

### How each is used

{_lines(map(_usage, peers))}

Measured on {now:%d %B %Y} with {os.cpu_count()} cores of {platform.machine()}, torch
{version}, and a load of {os.getloadavg()[2]:.1f} in the quarter of an hour before this was written,
of which 1 is the contest's own.
"""


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def _against(found: Found) -> str:
    about = f"| {found['name']} | {found['work']} | {found['anchor']}"
    return f"{about} | {_spread(found, 'ratio')} | {found['aim']:g} |"


def _limit(found: Found) -> str:
    spread, most = _spread(found, "value"), f"{found['aim']:g} {found['unit']}"
    return f"| {found['name']} | {found['work']} | {spread} {found['unit']} | {most} |"


def _row(peer: str, tutorials: Sequence[Found]) -> str:
    ratios = {each["work"]: _spread(each, "ratio") for each in tutorials if each["anchor"] == peer}
    cells = " | ".join(ratios.get(text, "") for text in TEXTS.values())
    return f"| {_package(peer)} | {cells} |"


def _spread(found: Found, name: str) -> str:
    return f"**{found[name]:.2f}** ({found['low']:.2f} to {found['high']:.2f})"


def _behind(experts: Sequence[Found]) -> str:
    behind = [each for each in experts if each["ratio"] < each["aim"]]
    names = ", ".join(f"`{each['name']}` ({each['ratio']:.2f})" for each in behind)
    return f"We miss it in {names}." if behind else "We reach it in all."


def _package(peer: str) -> str:
    return (FOLDER / peer / "requirements.txt").read_text().split()[0].replace("==", " ")


def _usage(peer: str) -> str:
    docstring = ast.get_docstring(ast.parse((FOLDER / peer / "contenders.py").read_text()))
    return f"- {' '.join((docstring or '').split())}"
