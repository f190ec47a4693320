"""Verbs that look at a model: show, baseline, replay."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

import mip
from mip.cli.inputs import opened, split_of
from mip.cli.options import Cache, Changes, Force, Json, SpecFile
from mip.cli.terminal import say
from mip.errors import SpecError
from mip.output import write


def show(
    spec: SpecFile,
    set_: Changes = None,
    layers: Annotated[bool, typer.Option("--layers", help="Every layer of the parts too.")] = False,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="Draw the tree as SVG.")
    ] = None,
    force: Force = False,
) -> None:
    """Show a model's tree: shapes, parameters, memory."""
    read_spec, table = opened(spec, set_, [svg], force)
    learned = mip.adapt(read_spec, split_of(read_spec, table, spec).train)
    sources = mip.runs.load_sources(read_spec, mip.Context(base=spec.parent))
    plan = mip.runs.adopt_facts(learned, sources)
    net = mip.build(plan, pretrain=False)
    if svg:
        write(svg, mip.plots.diagram(mip.model.summary(plan, net)).encode(), overwrite=force)
    say(mip.runs.model_table(str(spec), mip.model.summary(plan, net, layers)))
    counts = mip.model.count_layers(mip.model.profile(net, plan.example()))
    say(f"layers: {mip.runs.layer_counts(counts)}")
    if svg:
        say(f"drew {svg}")


def replay(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    step: Annotated[int, typer.Argument(metavar="STEP", help="Counted from 1.")],
    set_: Changes = None,
    cache: Cache = None,
) -> None:
    """Repeat one step of a past run and compare it."""
    read_spec, table = opened(folder / "spec.toml", set_)
    cut = split_of(read_spec, table, folder / "spec.toml")
    context = mip.Context(base=folder, cache=cache)
    again = mip.runs.replay(read_spec, cut, folder, step, context=context)
    origin = f"{again.file.name}, after step {again.start}" if again.file else "the spec"
    say(f"{folder}: step {step}, in epoch {again.epoch + 1}, from {origin}")
    say(f"rows {', '.join(map(str, again.rows))}")
    say(_numbers(again.now))
    if not again.then:
        say("the history does not have this step")
    elif again.differences:
        say(f"not equal: the history has {_numbers(again.differences)}")
    else:
        say(f"equal to the history, bit for bit: {', '.join(again.then)}")


def _numbers(named: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.9g}" for name, value in named.items())


def baseline(
    spec: SpecFile,
    set_: Changes = None,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="MODEL", help="A model of the same rows.")
    ] = None,
    json: Json = None,
    force: Force = False,
) -> None:
    """Score simple models on the rows of a spec."""
    read_spec, table = opened(spec, set_, [json], force, [model])
    if isinstance(table, mip.data.Shards):
        raise SpecError(f"{spec}: baseline needs all rows in memory: --set data.stream=false")
    cut = split_of(read_spec, table, spec)
    plan = mip.adapt(read_spec, cut.train)
    trained = {"network": mip.predict.score_by_part(mip.load(model), plan, cut)} if model else {}
    found = {**mip.predict.baselines(plan, cut), **trained}
    if json:
        mip.runs.write_json(json, found, overwrite=force)
    if mip.predict.unread_branches(plan):
        say(f"left out, for the network alone: {', '.join(mip.predict.unread_branches(plan))}")
    say(mip.runs.comparison_table(spec.name, found))
