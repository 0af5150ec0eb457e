"""Kaggle's Facial Keypoints: one CSV file of 96x96 gray pictures as numbers, with 15 points where known.

References
----------
.. [1] Dr. Y. Bengio (University of Montreal), https://www.kaggle.com/c/facial-keypoints-detection, 2013.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from facekit.data.files import is_far, same_named, strings
from facekit.data.pixel_table import SUFFIXES, load_picture, read_pixel_table, skipped_rows, table_header
from facekit.data.samples import Dataset
from facekit.errors import DatasetError
from facekit.schema import KEYPOINTS

LAYOUT = """\
training.csv or data.csv    left_eye_center_x,left_eye_center_y,...,Image
                            66.0,39.0,,,...,238 236 237 ...    an empty cell is a missing point
                            also .csv.xz, .csv.gz and .zip"""

SIDE = 96
_COLUMNS = tuple(f"{name}_{axis}" for name in KEYPOINTS for axis in "xy")


def matches(path: Path) -> bool:
    """Say whether a path is the CSV file or a folder that holds it."""
    return _main_file(path) is not None


def read(path: Path) -> Dataset:
    """Read the file; points are pixels of the 96x96 pictures.

    Raises
    ------
    DatasetError
    """
    file = _main_file(path) or path
    if file.is_dir():
        raise DatasetError(f"{path}: no training.csv or data.csv in this folder; give the CSV file itself")
    table = read_pixel_table(file, "image", SIDE * SIDE, _COLUMNS)
    texts = np.stack([table.columns[column][table.rows] for column in _COLUMNS], 1)
    points, places, faults = [], [], dict(table.faults)
    for place, (row, cells) in enumerate(zip(table.rows.tolist(), texts.tolist(), strict=True)):
        try:
            values = np.array([float(cell or "nan") for cell in cells]).reshape(15, 2)
        except ValueError as error:
            faults[row] = f"a coordinate is not a number: {error}"
            continue
        if is_far(values):
            faults[row] = "a point lies infinitely or absurdly far away"
            continue
        points.append(values)
        places.append(place)
    rows = table.rows[places]
    return Dataset(
        name="kaggle_keypoints",
        format="kaggle_keypoints",
        path=path,
        load=partial(load_picture, table.pixels, SIDE, np.array(places, np.int64)),
        rows=rows,
        sources=strings(f"{file.name}:{row}" for row in rows.tolist()),
        splits=strings([None] * len(rows)),
        points=np.array(points, np.float32).reshape(-1, 15, 2),
        skipped=skipped_rows(file, faults),
        root=file,
    )


def _main_file(path: Path) -> Path | None:
    names = [stem + suffix for stem, suffix in product(("training", "data"), SUFFIXES)]
    file = same_named(path, *names) if path.is_dir() else path
    return file if file is not None and {"image", *_COLUMNS} <= set(table_header(file)) else None
