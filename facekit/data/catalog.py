"""From a path to a dataset: the known formats, how each is recognised, and `load_dataset`."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

from facekit.data import (
    ck_plus,
    class_folders,
    expw,
    facekit_json,
    fer2013,
    jaffe,
    kaggle_keypoints,
    mtfl,
    muxspace,
    pts,
    raf_db,
    youtube_faces,
)
from facekit.data.samples import Dataset
from facekit.errors import ConfigError, DatasetError

_log = logging.getLogger(__name__)


class Reader(Protocol):
    """What a format's module holds."""

    LAYOUT: str

    def matches(self, path: Path) -> bool:
        """Say whether a path is of the format, without reading pictures."""

    def read(self, path: Path) -> Dataset:
        """Read a dataset; raise DatasetError where nothing can be read."""


FORMATS: Final[Mapping[str, Reader]] = MappingProxyType(
    {
        "fer2013": fer2013,
        "kaggle_keypoints": kaggle_keypoints,
        "youtube_faces": youtube_faces,
        "mtfl": mtfl,
        "muxspace": muxspace,
        "raf_db": raf_db,
        "facekit_json": facekit_json,
        "pts": pts,
        "jaffe": jaffe,
        "ck_plus": ck_plus,
        "expw": expw,
        "class_folders": class_folders,
    }
)
"""Every format's reader, in the order in which they are tried: the particular before the general."""


def detect_format(path: str | os.PathLike[str]) -> str:
    """Find out a dataset's format.

    Returns
    -------
    str
        A name of FORMATS.

    Raises
    ------
    DatasetError
        The path does not exist, or no format matches.
    """
    place = _existing(path)
    for name, reader in FORMATS.items():
        if reader.matches(place):
            return name
    raise DatasetError(
        f"{place}: no known format, it is {_description(place)}; `facekit formats` shows every layout"
    )


def load_dataset(path: str | os.PathLike[str], format: str = "auto", *, strict: bool = False) -> Dataset:
    """Read a labelled dataset; its pictures are read later, one by one.

    Parameters
    ----------
    path : str or path
        A folder or its main file.
    format : str
        A name of FORMATS, or "auto" to find it out.
    strict : bool
        Raise where a row would be left out.

    Returns
    -------
    Dataset
        Rows that could not be used are in its `skipped`.

    Raises
    ------
    DatasetError
        Nothing can be read, or with `strict` a row cannot.
    ConfigError
        The format is unknown.
    """
    place = _existing(path)
    if format not in ("auto", *FORMATS):
        raise ConfigError(f"unknown format {format!r}: expected auto or one of {', '.join(FORMATS)}")
    try:
        name = detect_format(place) if format == "auto" else format
        dataset = FORMATS[name].read(place)
    except OSError as error:
        raise DatasetError(f"{place}: cannot be read: {error}") from error
    _log.info("%s: %d rows of %s, %d left out", place, len(dataset), name, len(dataset.skipped))
    if dataset.skipped and (strict or not len(dataset)):
        first = dataset.skipped[0]
        raise DatasetError(
            f"{place}: {len(dataset.skipped)} of {len(dataset.skipped) + len(dataset)} rows cannot be used; "
            f"the first is row {first.row}, {first.source}: {first.reason}"
        )
    if not len(dataset):
        raise DatasetError(f"{place}: no pictures of format {name}; `facekit formats` shows its layout")
    return dataset


def _existing(path: str | os.PathLike[str]) -> Path:
    place = Path(path)
    try:
        if place.exists():
            return place
    except OSError as error:
        raise DatasetError(f"{place}: cannot be read: {error.strerror}") from error
    raise DatasetError(f"{place}: no such file or folder; check the path")


def _description(place: Path) -> str:
    if place.is_dir():
        names = sorted(entry.name for entry in place.iterdir())[:8]
        return f"a folder with {', '.join(names)}" if names else "an empty folder"
    with place.open("rb") as file:
        start = file.readline(100).decode("utf-8", "replace").strip()
    return f"a file that starts with {start!r}" if start else "an empty file"
