"""facekit's own output as labels: the JSON list of ``facekit predict --json``, or one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit.data.files import NO_POINTS, Collector
from facekit.data.samples import Dataset
from facekit.errors import DatasetError
from facekit.schema import KEYPOINTS, canonical_expression

LAYOUT = """\
labels.json     [{"image": "a.jpg", "faces": [{"box": [x0, y0, x1, y1],
                  "keypoints": {"nose_tip": [x, y], ...}, "expression": {"label": "happy"}}]}]
labels.jsonl    the same objects, one a line"""

_PLACES = {name: place for place, name in enumerate(KEYPOINTS)}


def matches(path: Path) -> bool:
    """Say whether a path is a .json or .jsonl file of pictures with faces."""
    if path.suffix.lower() not in (".json", ".jsonl") or not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(1 << 16)
    return start.lstrip()[:1] in (b"[", b"{") and b'"faces"' in start and b'"image"' in start


def read(path: Path) -> Dataset:
    """Read every face as a row; faces of one picture are one group.

    A picture is looked for beside the file, then in the current folder.

    Raises
    ------
    DatasetError
        The path is no file, or the file is not JSON.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: expected a .json or .jsonl file that facekit wrote")
    found, rows = Collector(path.parent), count()
    for image, faces in _pictures(path):
        places = (path.parent / image, Path.cwd() / image)
        place = next((place for place in places if place.is_file()), None)
        if isinstance(faces, str) or place is None:
            found.skip(next(rows), image, faces if isinstance(faces, str) else "no such picture")
            continue
        source = image if place == places[0] else str(place)
        for face, row in zip(faces, rows, strict=False):
            try:
                label, points, box = _face(face)
            except (TypeError, ValueError, LookupError, AttributeError) as error:
                found.skip(row, image, f"not a face as facekit writes it: {error!r}")
            else:
                found.add(row, source, label=label, points=points, box=box, group=image)
    return found.dataset(path.stem, "facekit_json", path, whole_pictures=True)


def _face(face: dict[str, Any]) -> tuple[str | None, NDArray[np.float32], NDArray[np.float32]]:
    points, edges = NO_POINTS.copy(), np.full(4, np.nan, np.float32)
    for name, point in (face.get("keypoints") or {}).items():
        points[_PLACES[name]] = np.array(point, np.float32).reshape(2)
    if face.get("box") is not None:
        edges[:] = np.array(face["box"], np.float32).reshape(4)
    expression = face.get("expression")
    return canonical_expression(expression["label"]) if expression else None, points, edges


def _pictures(path: Path) -> Iterator[tuple[str, list[Any] | str]]:
    """Give each picture's name with its faces, or with the reason why there are none to read."""
    for place, entry in enumerate(_entries(path)):
        if not (isinstance(entry, dict) and "image" in entry and isinstance(entry.get("faces"), list)):
            yield f"{path.name}:{place}", "expected an object with image and faces; is the file cut off?"
        else:
            yield str(entry["image"]), str(entry["error"]) if entry.get("error") else entry["faces"]


def _entries(path: Path) -> Iterator[Any]:
    """Give the members of a JSON list, a lone object, or a .jsonl file's lines, None for a broken one."""
    with path.open(encoding="utf-8", errors="replace") as file:
        if path.suffix.lower() == ".jsonl":
            for line in filter(str.strip, file):
                try:
                    yield json.loads(line)
                except json.JSONDecodeError:
                    yield None
            return
        try:
            parsed = json.load(file)
        except json.JSONDecodeError as error:
            raise DatasetError(f"{path}: not JSON: {error}; is the file cut off?") from error
    yield from parsed if isinstance(parsed, list) else [parsed]
