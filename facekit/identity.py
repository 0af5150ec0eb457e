"""The files that a model is made of, by their contents: what tells a run from one with other weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from facekit.backends import CARD
from facekit.detection import model_of
from facekit.weights import find_weights, sha256_of


def model_files(
    weights: str | os.PathLike[str] = "default",
    detector: str = "auto",
    detector_model: str | os.PathLike[str] | None = None,
) -> dict[str, str]:
    """Give the sha256 of every file that a FaceAnalyzer of these parameters may read, by use and name.

    The default weights are always among them: they do the task that others were not trained for.

    Raises
    ------
    WeightsError, DetectorError
        A file is not there or cannot be read.
    """
    models = {"weights": weights, "usual": "default", "detector": model_of(detector, detector_model)}
    return {
        f"{use}/{name}": digest
        for use, model in models.items()
        if model is not None
        for name, digest in _digests(model)
    }


def _digests(model: str | os.PathLike[str]) -> Iterator[tuple[str, str]]:
    """Give name and sha256 of the file of weights, or of an export's files."""
    folder = Path(model)
    if (folder / CARD).is_file():
        for file in (folder / CARD, *sorted(folder.glob("*.onnx"))):
            yield file.name, sha256_of(file)
    else:
        _, path, shipped_as = find_weights(model)
        yield path.name, shipped_as or sha256_of(path)
