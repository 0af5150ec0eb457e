"""Folders named by expression, with pictures in them: how AffectNet and most private sets are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekit.data.files import Collector, folders, sampled_sizes
from facekit.data.samples import Dataset, known_split
from facekit.errors import DatasetError, ImageError
from facekit.images import names_below
from facekit.schema import FERPLUS, canonical_expression

LAYOUT = """\
happy/1.jpg, sad/2.jpg
train/happy/1.jpg, validation/happy/2.jpg, test/happy/3.jpg
images/train/happy/1.jpg
happy/Training_123.jpg, happy/PrivateTest_456.jpg"""

FACE_SIDE = 256
"""Pictures up to this many pixels a side are the face itself; in larger ones it has to be found."""


def matches(path: Path) -> bool:
    """Say whether a folder has folders named by expression, directly or below folders named by split."""
    if not path.is_dir():
        return False
    base = class_base(path)
    below = folders(base)
    classes = [folder for split in below if known_split(split.name) for folder in folders(split)] or below
    return any(_is_expression(folder.name) for folder in classes)


def read(path: Path, *, fer2013: bool = True) -> Dataset:
    """Read class folders; the split is a folder's name, or Kaggle's: Training_123.jpg, PrivateTest_456.jpg.

    Parameters
    ----------
    path : Path
    fer2013 : bool
        Take a set whose pictures are 48x48 pixels for FER2013's.

    Raises
    ------
    DatasetError
        The path is not a folder.
    """
    if not path.is_dir():
        raise DatasetError(f"{path}: expected a folder of folders named by expression")
    base = class_base(path)
    by_split = any(known_split(folder.name) for folder in folders(base))
    own_split = known_split(base.resolve().name)
    prefix = "" if base == path else f"{base.relative_to(path).as_posix()}/"
    found = Collector(path)
    for row, name in enumerate(names_below(base)):
        *above, file = name.split("/")
        split = known_split(above.pop(0)) if by_split and above else own_split
        if not above or (by_split and split is None):
            found.skip(row, prefix + name, "the picture is in no folder named by expression")
            continue
        split = _kaggle_split(file) or split
        found.add(row, prefix + name, split=split, label=canonical_expression(above[0]))
    dataset = found.dataset(path.resolve().name, "class_folders", path)
    sizes = sampled_sizes(path, dataset.sources)
    if fer2013 and len(sizes) and (sizes == 48).all():
        return replace(dataset, load=partial(_load_48, dataset.load), fer2013_frame=True)
    return replace(dataset, whole_pictures=bool(len(sizes)) and bool(np.median(sizes.max(1)) > FACE_SIDE))


def first_stem(path: Path) -> str:
    """Give the name, up to the suffix, of the first picture in class folders; "" where there is none."""
    first = next(names_below(class_base(path)), "") if matches(path) else ""
    return Path(first).stem


def class_base(path: Path) -> Path:
    """Follow lone folders, such as "images", down to the one that holds the split or class folders."""
    below = folders(path)
    if len(below) == 1:
        name = below[0].name
        if not known_split(name) and not _is_expression(name) and folders(below[0]):
            return class_base(below[0])
    return path


def _load_48(load: Callable[[int], NDArray[np.uint8]], place: int) -> NDArray[np.uint8]:
    image = load(place)
    height, width = image.shape[:2]
    if (height, width) != (48, 48):
        raise ImageError(
            f"{width}x{height} pixels in a set of FER2013's 48x48; keep such pictures in a set of their own"
        )
    return image


def _is_expression(name: str) -> bool:
    return canonical_expression(name) in FERPLUS


def _kaggle_split(file: str) -> str | None:
    word = file.partition("_")[0]
    return known_split(word) if word in ("Training", "PublicTest", "PrivateTest") else None
