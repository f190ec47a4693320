"""Verbs that look at a model: show, baseline, replay."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

import mip
from mip.cli.inputs import open_spec, split_rows
from mip.cli.options import Cache, Changes, Device, Force, Json, SpecFile, model_file
from mip.cli.terminal import echo
from mip.errors import SpecError
from mip.output import write


def show(
    spec: SpecFile,
    set_: Changes = None,
    layers: Annotated[bool, typer.Option("--layers", help="Show every layer too.")] = False,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="Draw the tree as SVG.")
    ] = None,
    force: Force = False,
) -> None:
    """Show a model's tree: shapes, parameters, memory."""
    read_spec, table = open_spec(spec, set_, [svg], force)
    sources = mip.runs.load_sources(read_spec, mip.Context(base=spec.parent))
    plan = mip.adapt(read_spec, split_rows(read_spec, table, spec).train, base=spec.parent)
    plan = mip.runs.adopt_facts(plan, sources)
    net = mip.build(plan, pretrain=False)
    if svg:
        write(svg, mip.plots.diagram(mip.model.plan_nodes(plan, net)).encode(), overwrite=force)
    echo(mip.runs.model_table(str(spec), mip.model.plan_nodes(plan, net, layers)))
    counts = mip.model.count_layers(mip.model.profile(net, plan.example()))
    echo(f"layers: {mip.model.format_layer_counts(counts)}")
    if svg:
        echo(f"drew {svg}")


def replay(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    step: Annotated[int, typer.Argument(metavar="STEP", help="Counted from 1.")],
    set_: Changes = None,
    cache: Cache = None,
    device: Device = None,
) -> None:
    """Repeat one step of a past run and compare it."""
    spec_file = run / "spec.toml"
    spec, table = open_spec(spec_file, set_)
    parts = split_rows(spec, table, spec_file)
    context = mip.Context(base=run, cache=cache, device=device)
    again = mip.runs.replay(spec, parts, run, step, context=context)
    origin = f"{again.file.name}, after step {again.start}" if again.file else "the spec"
    echo(f"{run}: step {step}, in epoch {again.epoch + 1}, from {origin}")
    echo(f"rows {', '.join(map(str, again.rows))}")
    echo(_numbers(again.now))
    if not again.then:
        echo("the history does not have this step")
    elif again.differences:
        echo(f"not equal: the history has {_numbers(again.differences)}")
    else:
        echo(f"equal to the history, bit for bit: {', '.join(again.then)}")


def _numbers(named: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.9g}" for name, value in named.items())


def baseline(
    spec: SpecFile,
    set_: Changes = None,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="A model file or a run folder of the same rows.",
            callback=model_file,
        ),
    ] = None,
    json: Json = None,
    device: Device = None,
    force: Force = False,
) -> None:
    """Score simple models on the rows of a spec, to compare."""
    read_spec, table = open_spec(spec, set_, [json], force, [model])
    if isinstance(table, mip.data.Shards):
        raise SpecError(f"{spec}: baseline needs all rows in memory: --set data.stream=false")
    parts = split_rows(read_spec, table, spec)
    plan = mip.adapt(read_spec, parts.train, base=spec.parent)
    trained = {}
    if model:
        network = mip.load(model, device=device or "cpu")
        trained["network"] = mip.prediction.score_by_part(network, plan, parts)
    scores = {**mip.prediction.baselines(plan, parts), **trained}
    if json:
        mip.runs.write_json(json, scores, overwrite=force)
    unread = mip.prediction.branches_without_baseline(plan)
    if unread:
        echo(f"not used by the simple models, only by the network: {', '.join(unread)}")
    echo(mip.runs.comparison_table(spec.name, scores))
