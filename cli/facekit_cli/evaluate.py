"""`facekit evaluate`: measure predictions against a labelled dataset."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from facekit_cli import console
from facekit_cli.outputs import written

if TYPE_CHECKING:
    from facekit.evaluation import Evaluation


class Boxes(StrEnum):
    """Where a face's box comes from."""

    labels = "labels"
    detector = "detector"


def evaluate(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A labelled folder or its main file.")],
    data_format: Annotated[
        str, typer.Option("--format", metavar="F", help="The dataset's format; auto finds it.")
    ] = "auto",
    split: Annotated[
        str | None, typer.Option(metavar="S", help="train, validation, test or a native name.")
    ] = None,
    boxes: Annotated[Boxes | None, typer.Option(help="Where a face's box comes from.")] = None,
    tta: Annotated[bool, typer.Option("--tta", help="Mean over the picture and its mirror.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only this many rows, chosen by the seed.")] = None,
    weights: Annotated[str, typer.Option(metavar="W", help="A shipped name or a file.")] = "default",
    head: Annotated[str | None, typer.Option(metavar="H", help="The expression head.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of intervals and of the choice of rows.")] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first row that is faulty.")] = False,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="-|F", help="Write all figures as JSON.")
    ] = None,
) -> None:
    """Measure predictions against a labelled dataset."""
    from facekit.evaluation import evaluate

    with console.progress("samples") as tick:
        evaluation = evaluate(
            dataset,
            weights=weights,
            format=data_format,
            split=split,
            boxes=boxes.value if boxes else None,
            tta=tta,
            limit=limit,
            head=head,
            device=device,
            seed=seed,
            strict=strict,
            progress=tick,
        )
    for skipped in evaluation.skipped:
        console.complain(f"row {skipped.row}, {skipped.source}: {skipped.reason}")
    if json_file is None:
        for line in summarize(evaluation):
            console.say(line)
    else:
        with written(json_file) as stream:
            stream.write(evaluation.to_json() + "\n")
    raise typer.Exit(1 if evaluation.skipped else 0)


def summarize(evaluation: Evaluation) -> list[str]:
    """Tell the main figures with their 95% intervals, a line each."""
    figures = evaluation.to_dict()
    lines = [
        f"{figures['dataset']} ({figures['format']}): {figures['n']:,} rows, weights {figures['weights']}"
    ]
    for task, names in (
        ("expression", ("accuracy", "balanced_accuracy", "macro_f1", "nll", "brier", "ece")),
        ("keypoints", ("nme", "rmse_96", "failure_rate_08", "auc_08")),
    ):
        part = figures[task]
        if part is None:
            continue
        lines.append(f"{task}: {part['n']:,} faces, {part['undetected']:,} not found")
        for name in names:
            if part[name] is not None:
                interval = part["ci95"].get(name)
                spread = f"  ({interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
                lines.append(f"  {name:<18}{part[name]:.4f}{spread}")
    return lines
