"""Predictions as lines of JSON that are written while they are made, so that an interrupted run goes on.

A line is the object of one picture as `facekit predict` gives it, with what names the sample and the run.
Numbers are written in full, so that a resumed run gives the figures of an unbroken one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from facekit.batch.chunks import Stamp, stamp_of
from facekit.data.samples import Dataset
from facekit.predictions import Predictions, Predictor
from facekit.schema import EXPRESSIONS, KEYPOINTS
from facekit.writing import written

FILE = "predictions.jsonl"


class Journal:
    """The file `FILE` in a folder: holds the predictions of a run so far and takes more.

    Lines of another run are dropped, and so is a last line that was cut off.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    dataset : Dataset
    predictor : Predictor
        With the dataset it makes up the run: other samples, labels, pictures, models or options are another.
    """

    def __init__(self, folder: Path, dataset: Dataset, predictor: Predictor) -> None:
        self.path, self.dataset = folder / FILE, dataset
        self.weights, self.run = predictor.analyzer.backend.name, _name_of_run(dataset, predictor)
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        """Open the file for `write`, after what `read` found."""
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()

    def read(self, predictions: Predictions) -> NDArray[np.bool_]:
        """Put the predictions that are there into `predictions` and tell which samples (N,) these are."""
        done = np.zeros(len(self.dataset), np.bool_)
        kept = 0
        for place, (record, end) in enumerate(self._records()):
            if record.get("run") != self.run or place >= len(self.dataset):
                break
            _put(predictions, place, record)
            done[place], kept = True, end
        if self.path.is_file():
            os.truncate(self.path, kept)
        return done

    def write(self, places: NDArray[np.int64], part: Predictions) -> None:
        """Append the predictions of some samples; places continue where the file ends."""
        for row, place in enumerate(places.tolist()):
            record = _record(self.dataset, place, part, row, self.weights)
            self._file.write(json.dumps(record | {"run": self.run}) + "\n")
        self._file.flush()

    def _records(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Give the complete records of the file and where each ends, bytes."""
        if not self.path.is_file():
            return
        end = 0
        with self.path.open("rb") as file:
            for line in file:
                end += len(line)
                try:
                    record = json.loads(line)
                except ValueError:  # cut off in the middle of the line
                    return
                if not line.endswith(b"\n") or not isinstance(record, dict):
                    return
                yield record, end


def write_journal(path: Path, dataset: Dataset, predictions: Predictions, weights: str) -> None:
    """Write the predictions of a finished run at once."""
    with written(path) as stream:
        for place in range(len(dataset)):
            stream.write(json.dumps(_record(dataset, place, predictions, place, weights)) + "\n")


def _record(dataset: Dataset, place: int, part: Predictions, row: int, weights: str) -> dict[str, Any]:
    """Give the object of the sample at `place`, whose prediction is at `row` of `part`."""
    error, file = part.errors[row], _file_of(dataset, place)
    return {
        "index": int(dataset.rows[place]),
        "source": str(dataset.sources[place]),
        "split": dataset.splits[place],
        "label": None if dataset.labels is None else dataset.labels[place],
        "image": None if file is None else str(file),
        "width": None if error else int(part.sizes[row, 0]),
        "height": None if error else int(part.sizes[row, 1]),
        "weights": weights,
        "error": error,
        "faces": [] if np.isnan(part.box_scores[row]) else [_face(part, row)],
        "content": f"{part.hashes[row]:016x}",
    }


def _face(part: Predictions, row: int) -> dict[str, Any]:
    scores = dict(zip(EXPRESSIONS, _numbers(part.scores[row]), strict=True))
    label = max(scores, key=scores.__getitem__)
    second = None if np.isnan(part.second[row, 0]) else part.second[row]
    return {
        "box": _numbers(part.boxes[row]),
        "score": _numbers(part.box_scores[row : row + 1])[0],
        "keypoints": dict(zip(KEYPOINTS, _numbers(part.points[row]), strict=True)),
        "sigma": dict(zip(KEYPOINTS, _numbers(part.sigma[row]), strict=True)),
        "expression": {"label": label, "confidence": scores[label], "scores": scores},
        "second_opinion": second if second is None else dict(zip(EXPRESSIONS, _numbers(second), strict=True)),
    }


def _put(predictions: Predictions, place: int, record: dict[str, Any]) -> None:
    predictions.errors[place] = record["error"]
    predictions.hashes[place] = int(record["content"], 16)
    if record["error"] is None:
        predictions.sizes[place] = record["width"], record["height"]
    for face in record["faces"]:
        predictions.boxes[place], predictions.box_scores[place] = face["box"], face["score"]
        predictions.points[place] = list(face["keypoints"].values())
        predictions.sigma[place] = list(face["sigma"].values())
        predictions.scores[place] = list(face["expression"]["scores"].values())
        if face["second_opinion"]:
            predictions.second[place] = list(face["second_opinion"].values())


def _numbers(values: NDArray[np.float32]) -> list[Any]:
    """Give float32 values as the shortest decimals that say them exactly."""
    flat = [float(text) for text in values.ravel().astype("U32")]
    return flat if values.ndim == 1 else [flat[at : at + 2] for at in range(0, len(flat), 2)]


def _name_of_run(dataset: Dataset, predictor: Predictor) -> str:
    digest = blake2b(digest_size=8)
    source = [str(dataset.path.resolve()), dataset.format, dataset.fer2013_frame, _state(dataset.root)]
    options = [predictor.boxes, predictor.head, predictor.second, predictor.tta]
    digest.update(json.dumps([predictor.analyzer.identity, source, options]).encode())
    for column in (dataset.rows, dataset.points, dataset.boxes):
        digest.update(b"" if column is None else np.ascontiguousarray(column).tobytes())
    for place, name in enumerate(dataset.sources):
        label = None if dataset.labels is None else dataset.labels[place]
        sample = [name, dataset.splits[place], label, _state(_file_of(dataset, place))]
        digest.update(json.dumps(sample).encode())
    return digest.hexdigest()


def _file_of(dataset: Dataset, place: int) -> Path | None:
    """Give the file of a sample's picture; None for one in a table or in memory."""
    root = dataset.root
    return root / dataset.sources[place] if root is not None and root.is_dir() else None


def _state(path: Path | None) -> Stamp | None:
    return stamp_of(str(path)) if path is not None and path.is_file() else None
