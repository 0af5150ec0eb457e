"""`facekit predict`: find faces, keypoints and expressions in pictures."""

from __future__ import annotations

import csv
import glob
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from facekit.errors import ConfigError
from facekit_cli import console
from facekit_cli.options import (
    AllowPrivate,
    BackendName,
    BatchSize,
    DetectorModel,
    DetectorName,
    Device,
    JsonFile,
    MaxFaces,
    MaxPixels,
    MinFace,
    MinScore,
    WeightsName,
)
from facekit_cli.outputs import PictureFolder, keys_of, refuse_inputs, written

if TYPE_CHECKING:
    from facekit.analyzer import FaceAnalyzer
    from facekit.results import Faces


@dataclass(frozen=True, slots=True)
class Input:
    """One picture to analyse.

    Attributes
    ----------
    name : str
        The path or URL as given, joined for folders.
    source : str or bytes
        What is analysed.
    place : PurePath
        Where results named after it belong, below their folder.
    error : str or None
        Why there is nothing to analyse.
    """

    name: str
    source: str | bytes
    place: PurePath
    error: str | None = None


Sink = Callable[[Input, "Faces"], None]
"""Takes each picture's result."""


def predict(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT", help="Path, URL, folder, glob, or - for stdin.")
    ],
    json_file: JsonFile = None,
    csv_file: Annotated[str | None, typer.Option("--csv", metavar="F", help="Write one row a face.")] = None,
    draw: Annotated[
        str | None, typer.Option(metavar="DIR", help="Write the pictures with what was found.")
    ] = None,
    crops: Annotated[str | None, typer.Option(metavar="DIR", help="Write a picture of every face.")] = None,
    detector: DetectorName = "auto",
    detector_model: DetectorModel = None,
    device: Device = "auto",
    backend: BackendName = "auto",
    weights: WeightsName = "default",
    batch_size: BatchSize = 32,
    min_score: MinScore = None,
    min_face: MinFace = None,
    max_faces: MaxFaces = None,
    max_pixels: MaxPixels = None,
    allow_private: AllowPrivate = False,
) -> None:
    """Find faces, their 15 keypoints and expressions in pictures."""
    if json_file == csv_file == "-":
        raise ConfigError("--json and --csv cannot both write to stdout; give one of them a file")
    from facekit.analyzer import FaceAnalyzer
    from facekit.images import MAX_PIXELS

    found = [one for given in inputs for one in expand(given)]
    taken = keys_of(one.source for one in found if isinstance(one.source, str))
    refuse_inputs((json_file, csv_file), taken)
    analyzer = FaceAnalyzer(
        device,
        detector,
        weights=weights,
        detector_model=detector_model,
        min_score=min_score,
        min_face=min_face,
        max_faces=max_faces,
        max_pixels=max_pixels or MAX_PIXELS,
        allow_private=allow_private,
        batch_size=batch_size,
        backend=backend,
    )
    failed = 0
    with ExitStack() as stack:
        sinks = [stack.enter_context(sink) for sink in _sinks(taken, json_file, csv_file, draw, crops)]
        tick = stack.enter_context(console.progress("pictures"))
        for count, (one, faces) in enumerate(zip(found, analyse(analyzer, found), strict=True), 1):
            failed += faces.error is not None
            for sink in sinks:
                sink(one, faces)
            tick(count, len(found))
    raise typer.Exit(0 if not failed else 2 if failed == len(found) else 1)


def expand(given: str) -> Iterator[Input]:
    """Give the pictures that an argument stands for; what stands for none gives one that says so."""
    from facekit.images import find_pictures

    if given == "-":
        yield Input(given, sys.stdin.buffer.read(), PurePath("stdin"))
    elif "://" in given:
        yield Input(given, given, PurePath(_last_part(given) or "url"))
    elif os.path.isdir(given):  # noqa: PTH112  (a Path raises where the answer cannot be had)
        below, missing = [], "no pictures in this folder"
        try:
            below = [path.relative_to(given) for path in find_pictures(given)]
        except OSError as error:
            missing = f"cannot be read: {error.strerror}"
        if not below:
            yield Input(given, "", PurePath("none"), f"{given}: {missing}")
        for place in below:
            joined = os.path.join(given, place)  # noqa: PTH118  (a Path would drop the ./ that was given)
            yield Input(joined, joined, place)
    elif glob.has_magic(given) and not os.path.exists(given):  # noqa: PTH110
        matches = sorted(glob.glob(given, recursive=True))  # noqa: PTH207  (Path takes no absolute patterns)
        if not matches:
            yield Input(given, "", PurePath("none"), f"{given}: no file matches")
        # A folder that matches stands for pictures that may match too.
        yield from {one.name: one for match in matches for one in expand(match)}.values()
    else:
        yield Input(given, given, PurePath(PurePath(given).name))


def _last_part(url: str) -> str:
    try:
        return PurePath(urlsplit(url).path).name
    except ValueError:  # fetching it will say why
        return ""


def analyse(analyzer: FaceAnalyzer, inputs: Sequence[Input]) -> Iterator[Faces]:
    """Give each input's result, holding only a batch of pictures at a time."""
    from facekit.results import Faces

    analysed = analyzer.stream(one.source for one in inputs if one.error is None)
    for one in inputs:
        if one.error is None:
            yield next(analysed).named(one.name)
        else:
            yield Faces.failed(one.name, analyzer.backend.name, one.error)


def _sinks(
    taken: set[str], json_file: str | None, csv_file: str | None, draw: str | None, crops: str | None
) -> Iterator[Any]:
    """Give a context manager of a Sink for everything that was asked for."""
    yield _complaints()
    if json_file is not None:
        yield _json_list(json_file)
    if csv_file is not None:
        yield _csv_rows(csv_file)
    if json_file is None and csv_file is None:
        yield _lines()
    if draw is not None:
        yield _drawings(PictureFolder(draw, taken))
    if crops is not None:
        yield _crops(PictureFolder(crops, taken))


@contextmanager
def _complaints() -> Iterator[Sink]:
    def complain(_one: Input, faces: Faces) -> None:
        if faces.error is not None:
            console.complain(faces.error)

    yield complain


@contextmanager
def _json_list(target: str) -> Iterator[Sink]:
    with written(target) as stream:
        separator = "[\n"

        def write(_one: Input, faces: Faces) -> None:
            nonlocal separator
            stream.write(separator + faces.to_json())
            separator = ",\n"

        yield write
        stream.write("\n]\n")


@contextmanager
def _csv_rows(target: str) -> Iterator[Sink]:
    from facekit.results import COLUMNS

    with written(target) as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(COLUMNS)

        def write(_one: Input, faces: Faces) -> None:
            table.writerows(faces.to_rows() or [faces.to_empty_row()])

        yield write


@contextmanager
def _lines() -> Iterator[Sink]:
    def write(one: Input, faces: Faces) -> None:
        if faces.error is None:
            console.say(f"{one.name}: {describe(faces)}")

    yield write


def describe(faces: Faces) -> str:
    """Tell in one line what was found."""
    found = []
    for face in faces:
        x0, y0, x1, y1 = (round(float(edge)) for edge in face.box)
        found.append(
            f"{face.expression.label} {face.expression.confidence:.0%} at {x0},{y0} {x1 - x0}x{y1 - y0}"
        )
    return f"{len(found)} face{'s' if len(found) > 1 else ''}: {'; '.join(found)}" if found else "no face"


@contextmanager
def _drawings(folder: PictureFolder) -> Iterator[Sink]:
    def write(one: Input, faces: Faces) -> None:
        if faces.error is None:
            folder.save(one.place, "", faces.draw())

    yield write


@contextmanager
def _crops(folder: PictureFolder) -> Iterator[Sink]:
    def write(one: Input, faces: Faces) -> None:
        for count, face in enumerate(faces):
            folder.save(one.place, f"-{count}", face.crop())

    yield write
