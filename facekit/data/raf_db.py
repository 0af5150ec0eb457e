"""RAF-DB's basic expressions: aligned faces in folders 1 to 7, with label files.

References
----------
.. [1] S. Li, W. Deng, J. Du, "Reliable crowdsourcing and deep locality-preserving learning for expression
   recognition in the wild", 2017; for research.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path

from facekit.data.files import Collector, folders, read_header, read_rows
from facekit.data.samples import Dataset
from facekit.errors import DatasetError
from facekit.images import names_below
from facekit.schema import RAF_DB

LAYOUT = """\
train_labels.csv                              image,label    train_00001_aligned.jpg,5
DATASET/train/5/train_00001_aligned.jpg
test_labels.csv, DATASET/test/                either split may be missing"""

_SPLITS = ("train", "test")
_NAMES = {str(number): name for number, name in enumerate(RAF_DB, 1)}


def matches(path: Path) -> bool:
    """Say whether a path is RAF-DB's folder, its DATASET folder or one of its label files."""
    return bool(_parts(path))


def read(path: Path) -> Dataset:
    """Read the splits that are there: rows follow the label file, or the folders where that is missing.

    Raises
    ------
    DatasetError
    """
    parts = _parts(path)
    if not parts:
        raise DatasetError(f"{path}: neither DATASET/train/1 to 7 nor DATASET/test/1 to 7")
    root = path if path.is_dir() else path.parent
    found, rows = Collector(root), count()
    for split, folder, table in parts:
        there = {name.rpartition("/")[2]: name for name in names_below(folder)} if folder.is_dir() else {}
        if table is None:
            labelled = [(name, there[name].split("/")[0]) for name in there]
        else:
            cells = (cells for _, cells in read_rows(table, ("image", "label")))
            labelled = [(row.get("image", ""), row.get("label", "")) for row in cells]
        prefix = folder.relative_to(root).as_posix()
        for name, number in labelled:
            row, place = next(rows), there.pop(name, None)
            if place is None:
                found.skip(row, name, f"no such picture in {folder}")
            elif number not in _NAMES:
                found.skip(row, f"{prefix}/{place}", f"the label is {number!r}; expected 1 to 7")
            else:
                found.add(row, f"{prefix}/{place}", split=split, label=_NAMES[number])
        for place in there.values():
            found.skip(next(rows), f"{prefix}/{place}", f"not in {table}")
    return found.dataset("raf_db", "raf_db", path)


def _parts(path: Path) -> list[tuple[str, Path, Path | None]]:
    """Give each split that is there: its name, its folder of class folders, and its label file, if any."""
    if path.is_file():
        split = path.name.removesuffix("_labels.csv")
        if split not in _SPLITS or not {"image", "label"} <= set(read_header(path)):
            return []
        faces = path.parent / "DATASET"
        return [(split, (faces if faces.is_dir() else path.parent) / split, path)]
    if not path.is_dir():
        return []
    faces = path / "DATASET" if (path / "DATASET").is_dir() else path
    parts = []
    for split in _SPLITS:
        folder = faces / split
        if folder.is_dir() and any(below.name in _NAMES for below in folders(folder)):
            tables = (base / f"{split}_labels.csv" for base in (faces, faces.resolve().parent))
            parts.append((split, folder, next((table for table in tables if table.is_file()), None)))
    return parts
