"""CK+48: last frames of CK+'s sequences as 48x48 faces in class folders, named by subject.

References
----------
.. [1] P. Lucey et al., "The extended Cohn-Kanade dataset (CK+)", 2010; for research.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from facekit.data import class_folders
from facekit.data.files import strings
from facekit.data.samples import Dataset

LAYOUT = """\
anger/S010_004_00000017.png    subject, sequence, frame
contempt/, disgust/, fear/, happy/, sadness/, surprise/"""

_NAME = re.compile(r"(S\d{3})_\d{3}_\d{8}")


def matches(path: Path) -> bool:
    """Say whether a path holds class folders with CK+'s file names."""
    return bool(_NAME.fullmatch(class_folders.first_stem(path)))


def read(path: Path) -> Dataset:
    """Read the class folders; a subject's pictures are one group.

    Raises
    ------
    DatasetError
    """
    dataset = class_folders.read(path, fer2013=False)
    subjects = (_NAME.fullmatch(Path(source).stem) for source in dataset.sources)
    return replace(
        dataset,
        name="ck_plus",
        format="ck_plus",
        groups=strings(subject[1] if subject else None for subject in subjects),
    )
