"""`facekit bench`: measure this machine's speed, memory and accuracy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facekit_cli import console
from facekit_cli.options import Device, WeightsName

if TYPE_CHECKING:
    from facekit.benchmarking.running import Plan


def bench(
    suites: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SUITE]...",
            help="latency, throughput, training, augmentation, data, accuracy, memory, scaling or peers.",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A first impression within three minutes.")] = False,
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder of the results.")] = "benchmarks/results",
    device: Device = "auto",
    weights: WeightsName = "default",
    data: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Labelled data; else the folder that FACEKIT_DATA names."),
    ] = None,
    fer2013: Annotated[str | None, typer.Option(metavar="F", help="FER2013's CSV file.")] = None,
) -> None:
    """Measure this machine's speed, memory and accuracy, and write a results file for each suite.

    An interrupted run goes on where it stopped when it is started again.
    """
    from facekit.backends.torch import choose_device
    from facekit.benchmarking import SUITES
    from facekit.benchmarking.measuring import Setting
    from facekit.benchmarking.running import Plan

    folder = data or os.environ.get("FACEKIT_DATA")
    setting = Setting(
        choose_device(device),
        quick,
        weights,
        Path(folder) if folder else None,
        Path(fer2013) if fer2013 else None,
    )
    plan = Plan(suites or SUITES, setting, Path(out))
    for line in cost(plan):
        console.say(line)
    words = ["facekit", "bench", *(suites or ()), *(["--quick"] if quick else ())]
    count = plan.count()
    with console.progress("measurements") as tick:
        for place, done in enumerate(plan.run(" ".join(words)), 1):
            console.say(f"{done.suite}: {done.case}, {done.seconds:.0f} s")
            for figure in done.figures:
                console.say(f"    {describe(figure)}")
            if done.skipped:
                console.say(f"    not measured: {done.skipped}")
            if done.written:
                console.say(f"{done.suite}: {done.written}")
            tick(place, count)


def cost(plan: Plan) -> list[str]:
    """Tell what will be measured and about how long it takes."""
    lines = [
        f"{suite:<14}{len(cases):>3} measurements, about {duration(plan.seconds(suite))}"
        for suite, cases in plan.suites.items()
    ]
    total = sum(plan.seconds(suite) for suite in plan.suites)
    if plan.done():
        lines.append(f"{plan.done()} of {plan.count()} were done before the last run was interrupted")
    return [*lines, f"in all about {duration(total)}"]


def duration(seconds: float) -> str:
    """Tell a duration in seconds or minutes."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def describe(figure: dict[str, Any]) -> str:
    """Tell a figure in one line."""
    setting = ", ".join(f"{key} {told}" for key, told in figure["setting"].items())
    start = f"{figure['name']} ({setting})" if setting else figure["name"]
    if "median" in figure:
        low, high = figure["quartiles"]
        told = f"{figure['median']:,g} {figure['unit']} ({low:,g} to {high:,g})"
        floor = figure.get("floor")
        return f"{start}: {told}" + (f", {floor['share']:.0%} of the hardware's limit" if floor else "")
    if "evaluation" in figure:
        parts = figure["evaluation"]
        rates = [
            f"{name} {parts[task][name]:.4f}"
            for task, name in (("expression", "accuracy"), ("keypoints", "nme"))
            if parts[task]
        ]
        return f"{start}: {', '.join(rates)} of {parts['n']:,}"
    if figure["value"] is None:
        return f"{start}: not measured: {figure['reason']}"
    return f"{start}: {figure['value']:,g} {figure['unit']}"
