"""JAFFE: 213 whole pictures of ten women; the file name tells subject and expression.

References
----------
.. [1] M. Lyons et al., "Coding facial expressions with Gabor wavelets", 1998; for research.
"""

from __future__ import annotations

import re
from pathlib import Path

from facekit.data.files import Collector
from facekit.data.samples import Dataset
from facekit.errors import DatasetError
from facekit.images import names_below
from facekit.schema import canonical_expression

LAYOUT = """\
KA.AN1.39.tiff    subject, expression (AN DI FE HA NE SA SU) and its number, picture"""

_NAME = re.compile(r"([A-Z]{2})\.(AN|DI|FE|HA|NE|SA|SU)\d+\.\d+")


def matches(path: Path) -> bool:
    """Say whether a folder holds pictures with JAFFE's names."""
    return path.is_dir() and bool(_NAME.fullmatch(Path(next(names_below(path), "")).stem))


def read(path: Path) -> Dataset:
    """Read the folder; a subject's pictures are one group.

    Raises
    ------
    DatasetError
        The path is not a folder.
    """
    if not path.is_dir():
        raise DatasetError(f"{path}: expected a folder of pictures named like KA.AN1.39.tiff")
    found = Collector(path)
    for row, source in enumerate(names_below(path)):
        parts = _NAME.fullmatch(Path(source).stem)
        if parts:
            found.add(row, source, label=canonical_expression(parts[2]), group=parts[1])
        else:
            found.skip(row, source, "expected a name like KA.AN1.39")
    return found.dataset("jaffe", "jaffe", path, whole_pictures=True)
