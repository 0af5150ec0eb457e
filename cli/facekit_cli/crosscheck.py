"""`facekit crosscheck`: hold both models against a labelled dataset and find the labels that look wrong."""

from __future__ import annotations

from typing import Annotated

import typer

from facekit_cli import console
from facekit_cli.evaluate import exit_code, summarize
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


def crosscheck(
    dataset: DatasetPath,
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder of the report and its tables.")],
    reference: Annotated[
        str | None,
        typer.Option(metavar="FERPLUS.csv", help="FER+'s votes for FER2013, to judge the suspects by."),
    ] = None,
    write_clean: Annotated[
        str | None,
        typer.Option("--write-clean", metavar="F", help="List the rows that have no fault, as CSV."),
    ] = None,
    out_of_fold: Annotated[
        str | None,
        typer.Option(metavar="F", help="folds.npz of `facekit train --folds`, to score training rows by."),
    ] = None,
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
    """Hold both models against a labelled dataset and write a report.

    An interrupted run goes on where it stopped when it is started again with the same DIR.
    """
    from facekit import report
    from facekit.crosschecking import crosscheck

    with console.progress("samples") as tick:
        result = crosscheck(
            dataset,
            out=out,
            reference=reference,
            out_of_fold=out_of_fold,
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
    page = report.write_report(result, out)
    if write_clean:
        report.write_clean(result, write_clean)
    for row in result.evaluation.skipped:
        console.complain(f"row {row.row}, {row.source}: {row.reason}")
    if json_file is not None:
        with written(json_file) as stream:
            stream.write(result.to_json() + "\n")
    if json_file != "-":
        flagged = int(result.suspects.flagged.sum())
        for line in summarize(result.evaluation):
            console.say(line)
        console.say(f"suspect labels: {flagged:,} of {len(result.suspects):,}")
        if result.reference is not None and (auroc := result.reference.macro_within_class_auroc) is not None:
            console.say(f"  AUROC against the votes, within classes: {auroc:.4f}")
        console.say(f"report: {page}")
    raise typer.Exit(exit_code(result.evaluation))
