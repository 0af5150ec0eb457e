"""A cross-check as files: one page for people, tables and JSON for programs."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from facekit.crosschecking import SUMMARY, CrossCheck
from facekit.evaluation import sample_rows
from facekit.journal import FILE, write_journal
from facekit.report.page import page
from facekit.writing import written

SUSPECT_COLUMNS = (
    "rank",
    "index",
    "source",
    "split",
    "task",
    "label",
    "predicted",
    "score",
    "confidence",
    "pattern",
)


def write_report(result: CrossCheck, out: str | Path) -> Path:
    """Write predictions.jsonl, predictions.csv, suspects.csv, report.html and, last, summary.json.

    Parameters
    ----------
    result : CrossCheck
    out : path
        A folder, made if it is not there. The predictions.jsonl that the cross-check wrote into it stays.

    Returns
    -------
    Path
        Of report.html.
    """
    folder = Path(out)
    evaluation = result.evaluation
    if result.journal is None or result.journal.resolve() != (folder / FILE).resolve():
        write_journal(folder / FILE, evaluation.dataset, evaluation.predictions, evaluation.weights)
    write_table(folder / "predictions.csv", sample_rows(evaluation.dataset, evaluation.predictions))
    write_table(folder / "suspects.csv", result.rows(), SUSPECT_COLUMNS)
    with written(folder / "report.html") as stream:
        stream.write(page(result))
    with written(folder / SUMMARY) as stream:
        stream.write(result.to_json() + "\n")
    return folder / "report.html"


def write_clean(result: CrossCheck, file: str | Path) -> int:
    """Write the list of samples that have no fault of the dataset, and give their number.

    Of exact copies with one label the first stays. How suspect the label is, and whether it is flagged,
    stands beside each sample; suspect ones are not left out.

    Parameters
    ----------
    result : CrossCheck
    file : path
        A CSV file of index, source, split, label, suspect, flagged.
    """
    dataset, found = result.dataset, result.suspects
    bad = np.isin(dataset.rows, result.faults["duplicates"]["copies"])
    for kind, fault in result.faults.items():
        if kind not in ("duplicates", "class_imbalance"):
            bad |= np.isin(dataset.rows, fault["rows"])
    score, flagged = np.zeros(len(dataset)), np.zeros(len(dataset), np.bool_)
    np.maximum.at(score, found.places, found.scores)
    np.logical_or.at(flagged, found.places, found.flagged)
    kept = np.flatnonzero(~bad)
    write_table(
        Path(file),
        (
            {
                "index": int(dataset.rows[k]),
                "source": dataset.sources[k],
                "split": dataset.splits[k],
                "label": None if dataset.labels is None else dataset.labels[k],
                "suspect": round(float(score[k]), 6),
                "flagged": bool(flagged[k]),
            }
            for k in kept
        ),
    )
    return len(kept)


def write_table(path: Path, rows: Iterable[Mapping[str, Any]], columns: Iterable[str] = ()) -> None:
    """Write a CSV file; its columns are the first row's unless given, and None is an empty cell."""
    with written(path) as stream:
        table = csv.writer(stream, lineterminator="\n")
        header = tuple(columns)
        if header:
            table.writerow(header)
        for row in rows:
            if not header:
                header = tuple(row)
                table.writerow(header)
            table.writerow([row[name] for name in header])
