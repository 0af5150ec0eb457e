"""FER2013: one CSV file of 48x48 gray pictures as numbers, and the FER+ votes that belong to its rows.

References
----------
.. [1] I. Goodfellow et al., "Challenges in representation learning: a report on three machine learning
   contests", 2013; for research.
.. [2] E. Barsoum et al., "Training deep networks for facial expression recognition with crowd-sourced label
   distribution", 2016 (FER+); MIT licence.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit.data.files import read_rows, same_named, strings
from facekit.data.pixel_table import (
    SUFFIXES,
    PixelTable,
    load_picture,
    read_pixel_table,
    skipped_rows,
    table_header,
)
from facekit.data.samples import Dataset, canonical_split, known_split
from facekit.errors import DatasetError
from facekit.schema import EXPRESSIONS

LAYOUT = """\
fer2013.csv            emotion,pixels,Usage        0,70 80 82 ...,Training
                       also .csv.xz, .csv.gz and .zip
icml_face_data.csv     emotion, Usage, pixels
train.csv, test.csv    emotion,pixels and pixels alone
fer2013new.csv         beside it: the FER+ votes for the same rows"""

SIDE = 48
VOTES = (
    *("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"),
    *("unknown", "nf"),
)
"""FER+'s vote columns: the classes of schema.FERPLUS, unknown, and not a face."""

_LABELS = {str(number): name for number, name in enumerate(EXPRESSIONS)}
_STEMS = ("fer2013", "icml_face_data", "train", "test")
_log = logging.getLogger(__name__)


def main_file(path: Path) -> Path | None:
    """Give the CSV file that a path names: itself, or the one of FER2013's names in a folder."""
    names = [stem + suffix for stem, suffix in product(_STEMS, SUFFIXES)]
    file = same_named(path, *names) if path.is_dir() else path
    return file if file is not None and "pixels" in table_header(file) else None


def matches(path: Path) -> bool:
    """Say whether a path is FER2013's CSV file or a folder that holds it."""
    return main_file(path) is not None


def read(path: Path) -> Dataset:
    """Read FER2013, with FER+ votes where ``fer2013new.csv`` lies beside it.

    Raises
    ------
    DatasetError
    """
    file = main_file(path) or path
    if file.is_dir():
        raise DatasetError(f"{path}: no fer2013.csv in this folder; give the CSV file itself")
    table = read_pixel_table(file, "pixels", SIDE * SIDE)
    emotion, splits, faults = table.columns.get("emotion"), _splits(file, table), dict(table.faults)
    places = []
    for place, row in enumerate(table.rows.tolist()):
        reason = _why_not(None if emotion is None else str(emotion[row]), splits[row])
        if reason:
            faults[row] = reason
        else:
            places.append(place)
    kept = table.rows[places]
    dataset = Dataset(
        name="fer2013",
        format="fer2013",
        path=path,
        load=partial(load_picture, table.pixels, SIDE, np.array(places, np.int64)),
        rows=kept,
        sources=strings(f"{file.name}:{row}" for row in kept.tolist()),
        splits=strings(splits[row] for row in kept.tolist()),
        labels=None if emotion is None else strings(_LABELS[label] for label in emotion[kept].tolist()),
        fer2013_frame=True,
        skipped=skipped_rows(file, faults),
        root=file,
    )
    return _with_votes_beside(dataset, file)


def read_ferplus(path: str | Path) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Read FER+'s ``fer2013new.csv``.

    Returns
    -------
    splits : (M,) object of str
        train, validation or test.
    votes : (M, 10) uint8
        In the order of VOTES.

    Raises
    ------
    DatasetError
        A column is missing, or a cell is not a number of votes.
    """
    file = Path(path)
    if not file.is_file():
        raise DatasetError(f"{file}: no such file; expected FER+'s fer2013new.csv")
    splits, votes = [], []
    for row, cells in read_rows(file, ("usage", *VOTES)):
        try:
            splits.append(canonical_split(cells["usage"]))
            votes.append(np.array([int(cells[name]) for name in VOTES], np.uint8))
        except (KeyError, ValueError, OverflowError) as error:
            raise DatasetError(f"{file}: row {row}: expected a Usage and ten numbers: {error!r}") from error
    return strings(splits), np.stack(votes)


def join_ferplus(dataset: Dataset, path: str | Path) -> Dataset:
    """Give FER2013 with FER+ votes: in each Usage present, the i-th rows of both files belong together.

    Raises
    ------
    DatasetError
        The dataset is not a FER2013 CSV, or the files have unequal numbers of rows of a Usage.
    """
    file = main_file(dataset.path) if dataset.format == "fer2013" else None
    if file is None:
        raise DatasetError(f"{dataset.path}: FER+ votes belong to FER2013's CSV, not to {dataset.format}")
    votes_splits, votes = read_ferplus(path)
    splits = strings(_splits(file, read_pixel_table(file, "pixels", SIDE * SIDE)))
    joined = np.zeros((len(splits), len(VOTES)), np.uint8)
    for split in sorted({str(split) for split in dataset.splits}):
        places, theirs = np.flatnonzero(splits == split), np.flatnonzero(votes_splits == split)
        if len(places) != len(theirs):
            raise DatasetError(
                f"{path}: {len(theirs)} rows of {split}, but {file} has {len(places)}; "
                "FER+ is joined row by row, so both must hold the same rows"
            )
        joined[places] = votes[theirs]
    return replace(dataset, votes=joined[dataset.rows])


def _with_votes_beside(dataset: Dataset, file: Path) -> Dataset:
    votes = file.with_name("fer2013new.csv")
    if not votes.is_file() or dataset.labels is None:
        return dataset
    try:
        return join_ferplus(dataset, votes)
    except DatasetError as error:
        _log.warning("the FER+ votes are not used: %s", error)
        return dataset


def _why_not(label: str | None, split: str | None) -> str | None:
    if label is not None and label not in _LABELS:
        return f"the label is {label!r}; expected 0 to {len(_LABELS) - 1}"
    return "the Usage is not Training, PublicTest or PrivateTest" if split == "" else None


def _splits(file: Path, table: PixelTable) -> list[str | None]:
    """Name the splits of all data rows, "" for an unknown Usage; without that column by the file's name."""
    usage = table.columns.get("usage")
    if usage is None:
        stem = file.name.lower().split(".")[0]
        return [stem if stem in ("train", "test") else None] * len(table)
    names = {text: known_split(text) or "" for text in np.unique(usage).tolist()}
    return [names[text] for text in usage.tolist()]
