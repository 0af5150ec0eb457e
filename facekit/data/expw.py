"""ExpW: faces from web photos, as crops in class folders or as whole photos with ``label.lst``.

References
----------
.. [1] Z. Zhang et al., "From facial expression recognition to interpersonal relation prediction", 2018;
   for research.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from facekit.data import class_folders
from facekit.data.files import Collector, same_named, strings
from facekit.data.samples import Dataset
from facekit.images import names_below
from facekit.schema import EXPRESSIONS

LAYOUT = """\
happy/angry_boy_100_0.jpg       crops in class folders, named query_number_face.jpg
label.lst                       angry_boy_100.jpg 0 28 113 226 141 22.9 5
                                picture, face, top, left, right, bottom, confidence, label
image/origin/angry_boy_100.jpg  or origin/, image/, or beside label.lst"""

_CROP = re.compile(r"([^\W\d_][^\d_]*(?:_[^\d_]+)*_\d+)_\d+")
_CLASSES = dict(enumerate(EXPRESSIONS))


def matches(path: Path) -> bool:
    """Say whether a path is ExpW's label.lst, a folder that holds it, or class folders of its crops."""
    return _label_list(path) is not None or bool(_CROP.fullmatch(class_folders.first_stem(path)))


def read(path: Path) -> Dataset:
    """Read the crops, or the whole photos with a labelled box each; faces of one photo are one group.

    Raises
    ------
    DatasetError
    """
    listed = _label_list(path)
    if listed:
        return _read_list(path, listed)
    crops = class_folders.read(path, fer2013=False)
    photos = (_CROP.fullmatch(Path(source).stem) for source in crops.sources)
    return replace(
        crops,
        name="expw",
        format="expw",
        groups=strings(photo[1] if photo else None for photo in photos),
        whole_pictures=False,
    )


def _label_list(path: Path) -> Path | None:
    if path.is_dir():
        return same_named(path, "label.lst", "label/label.lst")
    return path if path.name == "label.lst" else None


def _read_list(path: Path, listed: Path) -> Dataset:
    base = listed.parent.parent if listed.parent.name == "label" else listed.parent
    places = (base / "image" / "origin", base / "origin", base / "image", base)
    folder = next(place for place in places if place.is_dir())
    there = set(names_below(folder))
    found = Collector(folder)
    with listed.open(encoding="utf-8", errors="replace") as lines:
        for row, words in enumerate(map(str.split, lines)):
            if len(words) != 8:
                found.skip(row, f"{listed.name}:{row}", f"expected 8 fields, got {len(words)}")
                continue
            name, _, *numbers, label = words
            try:
                top, left, right, bottom, _ = map(float, numbers)
                expression = _CLASSES[int(label)]
            except (ValueError, KeyError):
                reason = f"expected a box, a confidence and a label 0 to 6, got {' '.join(words[2:])!r}"
                found.skip(row, name, reason)
                continue
            if name not in there:
                found.skip(row, name, f"no such picture in {folder}")
                continue
            box = (left, top, right, bottom)
            found.add(row, name, label=expression, box=box, group=Path(name).stem)
    return found.dataset("expw", "expw", path, whole_pictures=True)
