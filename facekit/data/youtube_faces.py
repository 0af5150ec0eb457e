"""YouTube Faces: frames with 68 points in a row of a CSV file, as courses on keypoints hand them out.

References
----------
.. [1] L. Wolf, T. Hassner, I. Maoz, "Face recognition in unconstrained videos with matched background
   similarity", 2011; for research.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from facekit.data.files import Collector, person_of, read_header, read_rows
from facekit.data.pts import points_from_ibug68
from facekit.data.samples import Dataset, known_split
from facekit.errors import DatasetError

LAYOUT = """\
training_frames_keypoints.csv    ,0,1,...,135      Luis_Fonsi_21.jpg,45.0,98.0,...
training/Luis_Fonsi_21.jpg
test_frames_keypoints.csv, test/"""

_COLUMNS = tuple(str(number) for number in range(136))


def matches(path: Path) -> bool:
    """Say whether a path is a CSV file of file names and 68 points, or a folder that holds one."""
    return bool(_label_files(path))


def read(path: Path) -> Dataset:
    """Read one CSV file, or those of a folder one after the other; a person's frames are one group.

    Raises
    ------
    DatasetError
    """
    files = _label_files(path)
    if not files:
        raise DatasetError(f"{path}: no CSV file with a file name and 68 points in columns 0 to 135")
    root = files[0].parent
    found, first = Collector(root), 0
    for file in files:
        part = file.stem.partition("_")[0]
        split = known_split(part)
        folder = part if (root / part).is_dir() else ""
        row = first
        for place, cells in read_rows(file, _COLUMNS):
            row, name = first + place, cells.get("", "")
            source = Path(folder, name).as_posix()
            try:
                points = np.array([cells[column] for column in _COLUMNS], np.float64).reshape(68, 2)
            except (KeyError, ValueError):
                found.skip(row, source, f"expected 136 numbers after the name, got {len(cells) - 1} cells")
                continue
            if not (root / source).is_file():
                found.skip(row, source, "no such picture")
                continue
            group = person_of(Path(name).stem)
            found.add(row, source, split=split, points=points_from_ibug68(points), group=group)
        first = row + 1
    return found.dataset("youtube_faces", "youtube_faces", path, whole_pictures=True)


def _label_files(path: Path) -> list[Path]:
    """Give the CSV files of the format, training before test."""
    files = sorted(path.glob("*.csv"), reverse=True) if path.is_dir() else [path]
    return [file for file in files if read_header(file)[:137] == ("", *_COLUMNS)]
