"""muxspace's facial_expressions: whole pictures with crowdsourced labels in ``legend.csv``.

References
----------
.. [1] https://github.com/muxspace/facial_expressions, Apache-2.0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from facekit.data.files import Collector, person_of, read_header, read_rows, same_named
from facekit.data.samples import Dataset
from facekit.errors import DatasetError
from facekit.images import names_below
from facekit.schema import LABEL_SETS, canonical_expression

LAYOUT = """\
data/legend.csv                       user.id,image,emotion    302,Abdoulaye_Wade_0002.jpg,happiness
images/Abdoulaye_Wade_0002.jpg"""


def matches(path: Path) -> bool:
    """Say whether a path is muxspace's legend.csv or a folder that holds it."""
    return _legend(path) is not None


def read(path: Path) -> Dataset:
    """Read every row of the legend, pictures listed twice too; a person's pictures are one group.

    Raises
    ------
    DatasetError
    """
    legend = _legend(path)
    if legend is None:
        raise DatasetError(f"{path}: no legend.csv with the columns image and emotion, here or in data/")
    base = legend.parent.parent if legend.parent.name == "data" else legend.parent
    folder = base / "images" if (base / "images").is_dir() else base
    there = set(names_below(folder))
    prefix = "" if folder == base else "images/"
    found = Collector(base)
    for row, cells in read_rows(legend, ("image", "emotion")):
        name, emotion = cells.get("image", ""), cells.get("emotion", "")
        if name not in there:
            found.skip(row, prefix + name, f"no such picture in {folder}")
        elif not emotion:
            found.skip(row, prefix + name, "no emotion in this row")
        else:
            stem = Path(name).stem
            found.add(row, prefix + name, label=canonical_expression(emotion), group=person_of(stem) or stem)
    return found.dataset("muxspace", "muxspace", path, whole_pictures=True)


def four_classes(dataset: Dataset) -> Dataset:
    """Clean a set up as muxspace's own work did: happy, sad, angry and neutral only, and each picture once.

    Pictures listed with different labels are left out.
    """
    assert dataset.labels is not None
    first: dict[str, int] = {}
    conflicting = set()
    for place, (source, label) in enumerate(zip(dataset.sources, dataset.labels, strict=True)):
        if dataset.labels[first.setdefault(source, place)] != label:
            conflicting.add(source)
    kept = [
        place
        for source, place in first.items()
        if source not in conflicting and dataset.labels[place] in LABEL_SETS["four"]
    ]
    return dataset.select(np.array(kept, np.int64))


def _legend(path: Path) -> Path | None:
    file = same_named(path, "data/legend.csv", "legend.csv") if path.is_dir() else path
    return file if file is not None and {"image", "emotion"} <= set(read_header(file)) else None
