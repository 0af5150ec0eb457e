"""MTFL: faces with five points, from LFW and the web.

References
----------
.. [1] Z. Zhang et al., "Facial landmark detection by deep multi-task learning", 2014; for research.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from facekit.data.files import NO_POINTS, Collector, person_of, read_header, read_rows, same_named
from facekit.data.samples import Dataset, known_split
from facekit.errors import DatasetError
from facekit.schema import KEYPOINTS

LAYOUT = """\
points.csv      path,split,leye_x,...,rmouth_y    lfw_5590/Aaron_Pena_0001.jpg,train,32.88,...
training.txt    or the original lists: lfw_5590\\Aaron_Pena_0001.jpg x1 .. x5 y1 .. y5 ...
lfw_5590/, net_7876/"""

# MTFL's first eye and first mouth corner are those on the picture's left, which is the subject's right.
_POINTS = ("right_eye_center", "left_eye_center", "nose_tip", "mouth_right_corner", "mouth_left_corner")
_PARTS = ("leye", "reye", "nose", "lmouth", "rmouth")
_COLUMNS = (*(f"{part}_x" for part in _PARTS), *(f"{part}_y" for part in _PARTS))
_LISTS = {"training.txt": "train", "testing.txt": "test"}


def matches(path: Path) -> bool:
    """Say whether a path is MTFL's points.csv, one of its lists, or a folder that holds them."""
    return bool(_label_files(path))


def read(path: Path) -> Dataset:
    """Read the points; pictures of one person of LFW are one group.

    Raises
    ------
    DatasetError
    """
    files = _label_files(path)
    if not files:
        raise DatasetError(f"{path}: neither points.csv with {', '.join(_COLUMNS)} nor training.txt")
    root = files[0].parent
    found = Collector(root)
    readers = (_csv_lines(file) if file.suffix == ".csv" else _list_lines(file) for file in files)
    lines = chain.from_iterable(readers)
    for row, (name, split, numbers) in enumerate(lines):
        try:
            values = np.array(numbers, np.float64).reshape(2, 5)
        except ValueError:
            found.skip(row, name, f"expected ten numbers after the name, got {' '.join(numbers)[:60]!r}")
            continue
        if not (root / name).is_file():
            found.skip(row, name, "no such picture")
            continue
        points = NO_POINTS.copy()
        points[[KEYPOINTS.index(point) for point in _POINTS]] = values.T
        found.add(row, name, split=split, points=points, group=person_of(Path(name).stem))
    return found.dataset("mtfl", "mtfl", path, whole_pictures=True)


def _label_files(path: Path) -> list[Path]:
    if path.is_dir():
        table = same_named(path, "points.csv")
        files = [table] if table else [path / name for name in _LISTS if (path / name).is_file()]
    else:
        files = [path]
    return [file for file in files if _is_list(file) or set(_COLUMNS) <= set(read_header(file))]


def _is_list(file: Path) -> bool:
    if file.name not in _LISTS or not file.is_file():
        return False
    with file.open(encoding="utf-8", errors="replace") as lines:
        return len(next(iter(lines), "").split()) == 15


def _csv_lines(file: Path) -> Iterator[tuple[str, str | None, list[str]]]:
    for _, cells in read_rows(file, ("path", *_COLUMNS)):
        yield (
            cells.get("path", ""),
            known_split(cells.get("split", "")),
            [cells.get(column, "") for column in _COLUMNS],
        )


def _list_lines(file: Path) -> Iterator[tuple[str, str | None, list[str]]]:
    with file.open(encoding="utf-8", errors="replace") as lines:
        for words in map(str.split, lines):
            if words:
                yield words[0].replace("\\", "/"), _LISTS[file.name], words[1:11]
