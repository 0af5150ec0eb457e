"""`facekit evaluate`: measure predictions against a labelled dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from facekit_cli import console
from facekit_cli.options import (
    BoxSource,
    DatasetPath,
    Device,
    Format,
    Head,
    JsonFile,
    Limit,
    Seed,
    Split,
    Strict,
    Tta,
    WeightsName,
)
from facekit_cli.outputs import written

if TYPE_CHECKING:
    from facekit.evaluation import Evaluation


def evaluate(
    dataset: DatasetPath,
    data_format: Format = "auto",
    split: Split = None,
    boxes: BoxSource = None,
    tta: Tta = False,
    limit: Limit = None,
    weights: WeightsName = "default",
    head: Head = None,
    device: Device = "auto",
    seed: Seed = 0,
    strict: Strict = False,
    json_file: JsonFile = None,
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
    raise typer.Exit(exit_code(evaluation))


def exit_code(evaluation: Evaluation) -> int:
    """Give 0, 1 where rows were left out, or 2 where all of them were."""
    if not evaluation.skipped:
        return 0
    return 1 if len(evaluation.dataset) else 2


def summarize(evaluation: Evaluation) -> list[str]:
    """Tell the main figures with their 95% intervals, a line each."""
    figures = evaluation.to_dict()
    lines = [
        f"{figures['dataset']} ({figures['format']}): {figures['n']:,} rows, weights {figures['weights']}"
    ]
    if figures["seen_in_training"]:
        lines.append(
            f"{figures['seen_in_training']:,} were in the weights' training data; figures are too good"
        )
    for task, names in (
        ("expression", ("accuracy", "balanced_accuracy", "macro_f1", "nll", "brier", "ece")),
        ("keypoints", ("nme", "rmse_96", "failure_rate_08", "auc_08")),
    ):
        part = figures[task]
        if part is None:
            continue
        lines.append(f"{task}: {part['n']:,} faces, {part['undetected']:,} not found")
        if others := part.get("other_labels"):
            counts = ", ".join(f"{count:,} {label}" for label, count in others.items())
            lines.append(f"  left out, with labels that the model does not tell: {counts}")
        for name in names:
            if part[name] is not None:
                interval = part["ci95"].get(name)
                spread = f"  ({interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
                lines.append(f"  {name:<18}{part[name]:.4f}{spread}")
    return lines
