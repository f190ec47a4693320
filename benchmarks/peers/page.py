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

FOLDER = Path(__file__).parent

Found = Mapping[str, Any]
"""What a file keeps of a `Result` or a `Measured`."""


def page(loops: Sequence[Found], peers: Sequence[Found]) -> str:
    """Write the results as a page of Markdown."""
    ratios = [each for each in loops if "ratio" in each]
    limits = [each for each in loops if "value" in each]
    return f"""# The speed of training

How fast training is, against loops written by hand and against other libraries. The command is

    make peers

Numbers are ratios: how many times as fast as the other, the median of rounds in which both take
turns, and in brackets its quartiles. Below 1 the other is faster. What the machine does meanwhile
troubles both, so a quartile tells how far a ratio can be trusted.

## Against loops written by hand

The loop is what an expert writes for this one network: rows gathered with `index_select`, one
forward and one backward pass, torch's own optimizer, and nothing that watches unless it is said.

| name | ours | the loop | times as fast | aim |
|---|---|---|---|---|
{_lines(_against(each) for each in ratios)}

What a fit takes beyond its steps, in milliseconds, the median and its quartiles:

| name | what | found | at most |
|---|---|---|---|
{_lines(_limit(each) for each in limits)}

## Against other libraries

Each trains rows that are in memory already, by a model that is built already: what is timed is its
own call that fits. Networks, batches and steps are the same, the optimizer is the library's own
Adam or AdamW, and a contest in which steps or parameters differ is not counted. Ours writes its
history, and has a bar and a line an epoch, as `mip fit` does, but keeps no checkpoints.

| library | what is trained | times as fast as it |
|---|---|---|
{_lines(_peer(each) for each in peers)}

{_lines(_how(each["anchor"]) for each in {each["anchor"]: each for each in peers}.values())}

Measured on {datetime.now(UTC):%d %B %Y} with {os.cpu_count()} cores of {platform.machine()}, one
thread for each contender unless the name says otherwise, and torch {_version(torch.__version__)}.
"""


def _lines(rows: Any) -> str:
    return "\n".join(rows)


def _against(found: Found) -> str:
    about = f"| {found['name']} | {found['work']} | {found['anchor']}"
    return f"{about} | {_spread(found, 'ratio')} | {found['aim']:g} |"


def _limit(found: Found) -> str:
    return f"| {found['name']} | {found['work']} | {_spread(found, 'value')} | {found['aim']:g} |"


def _peer(found: Found) -> str:
    return f"| {_called(found['anchor'])} | {found['work']} | {_spread(found, 'ratio')} |"


def _spread(found: Found, name: str) -> str:
    return f"**{found[name]:.2f}** ({found['low']:.2f} to {found['high']:.2f})"


def _called(peer: str) -> str:
    return (FOLDER / peer / "requirements.txt").read_text().split()[0].replace("==", " ")


def _how(peer: str) -> str:
    told = ast.get_docstring(ast.parse((FOLDER / peer / "contenders.py").read_text()))
    return f"- {' '.join((told or '').split())}"


def _version(text: str) -> str:
    return text.partition("+")[0]
