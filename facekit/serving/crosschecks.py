"""A cross-check of labelled pictures that came as a zip file, in a folder that is gone afterwards."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from facekit.errors import DatasetError
from facekit.serving.archive import unpack
from facekit.serving.settings import Limits

if TYPE_CHECKING:
    from facekit.analyzer import FaceAnalyzer
    from facekit.crosschecking import CrossCheck

NAME = "upload"
"""What the dataset is called in the result."""


def crosscheck_archive(data: bytes, analyzer: FaceAnalyzer, limits: Limits, *, as_page: bool) -> str:
    """Hold the models against the class folders in a zip file.

    Parameters
    ----------
    data : bytes
    analyzer : FaceAnalyzer
    limits : Limits
    as_page : bool
        Give report.html rather than summary.json.

    Raises
    ------
    DatasetError
        The zip file is refused (see archive.unpack) or holds no set of labelled pictures.
    TimeoutError
        It takes longer than limits.archive_seconds.
    """
    from facekit.report.page import page

    deadline = time.monotonic() + limits.archive_seconds
    with tempfile.TemporaryDirectory(prefix="facekit-") as temporary:
        folder = Path(temporary) / NAME
        folder.mkdir()
        unpack(data, folder, limits)
        place = f"{folder}/"  # nobody's business
        try:
            result = _crosscheck(folder, analyzer, deadline)
        except DatasetError as error:
            raise DatasetError(str(error).replace(place, "")) from error
        text = page(result) if as_page else result.to_json()
        return text.replace(place, "")


def _crosscheck(folder: Path, analyzer: FaceAnalyzer, deadline: float) -> CrossCheck:
    from facekit.crosschecking import crosscheck
    from facekit.data.catalog import load_dataset

    def tick(_done: int, _total: int) -> None:
        if time.monotonic() > deadline:
            raise TimeoutError

    dataset = load_dataset(folder, "class_folders")
    return crosscheck(replace(dataset, path=Path(NAME)), analyzer=analyzer, progress=tick)
