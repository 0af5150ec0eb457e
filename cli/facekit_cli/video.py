"""`facekit video`: find and follow the faces of a video."""

from __future__ import annotations

import csv
import io
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facekit.errors import ConfigError
from facekit_cli import console
from facekit_cli.options import (
    BackendName,
    DetectorModel,
    DetectorName,
    Device,
    MaxFaces,
    MinFace,
    MinScore,
    WeightsName,
)
from facekit_cli.outputs import written

if TYPE_CHECKING:
    from facekit.decoding import Video
    from facekit.timeline import Timeline
    from facekit.video import FrameFaces

PLOTS = (".png", ".svg", ".pdf")

SHOWN_FAULTS = 5
"""A damaged file may have hundreds of broken frames; so many get a line on stderr, all are in the output."""

Sink = Callable[["FrameFaces"], None]
"""Takes each frame's result."""

Raw = Annotated[bool, typer.Option("--raw", help="Do not smooth over time.")]
Every = Annotated[
    int, typer.Option(min=1, metavar="K", help="Search every K-th frame; between, follow known faces.")
]


def video(
    source: Annotated[str, typer.Argument(metavar="IN", help="A video file, or the number of a camera.")],
    out: Annotated[
        str | None, typer.Option(metavar="OUT.mp4", help="Write the video with what was found.")
    ] = None,
    jsonl: Annotated[
        str | None, typer.Option(metavar="-|F", help="Write one JSON object a frame, a line each.")
    ] = None,
    csv_file: Annotated[
        str | None, typer.Option("--csv", metavar="-|F", help="Write one row a face.")
    ] = None,
    timeline: Annotated[
        str | None, typer.Option(metavar="F.png", help="Plot each person's expressions over time.")
    ] = None,
    raw: Raw = False,
    every: Every = 1,
    detector: DetectorName = "auto",
    detector_model: DetectorModel = None,
    device: Device = "auto",
    backend: BackendName = "auto",
    weights: WeightsName = "default",
    min_score: MinScore = None,
    min_face: MinFace = None,
    max_faces: MaxFaces = None,
) -> None:
    """Find the faces of a video and follow them; Ctrl-C ends it with what is done so far."""
    if jsonl == csv_file == "-":
        raise ConfigError("--jsonl and --csv cannot both write to stdout; give one of them a file")
    _check_targets(source, out, jsonl, csv_file, timeline)
    quieten_decoders()
    from facekit.analyzer import FaceAnalyzer
    from facekit.decoding import Video
    from facekit.timeline import Timeline
    from facekit.video import analyze_video

    clip = Video(camera_or_path(source))
    analyzer = FaceAnalyzer(
        device,
        detector,
        weights=weights,
        detector_model=detector_model,
        min_score=min_score,
        min_face=min_face,
        max_faces=max_faces,
        backend=backend,
    )
    seen, progress = Timeline(), _Progress()
    with ExitStack() as stack:
        stopped = stack.enter_context(interruption())
        sinks = [
            _keep(seen),
            _complaints(),
            *(stack.enter_context(sink) for sink in _sinks(clip, seen, out, jsonl, csv_file, timeline)),
        ]
        tick = stack.enter_context(console.progress(clip.name, "frames/s"))
        frames = analyze_video(clip, every=every, raw=raw, analyzer=analyzer)
        stack.callback(frames.close)
        for faces in frames:
            for sink in sinks:
                sink(faces)
            progress.count(faces)
            tick(progress.frames, clip.count)
            if stopped():
                progress.interrupted = True
                break
    for line in _summary(clip, seen, progress):
        console.say(line, error="-" in (jsonl, csv_file))
    raise typer.Exit(progress.exit_code())


class _Progress:
    """How far a video is, and what went wrong."""

    def __init__(self) -> None:
        self.frames = self.faults = 0
        self.interrupted = False
        self._start = time.perf_counter()

    def count(self, faces: FrameFaces) -> None:
        self.frames += 1
        self.faults += faces.error is not None

    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def exit_code(self) -> int:
        if self.interrupted:
            return 130
        return 0 if not self.faults else 2 if self.faults == self.frames else 1


def camera_or_path(given: str) -> str | int:
    """Give the camera's number that an argument stands for, or the path that it is."""
    return int(given) if given.isdecimal() and not Path(given).exists() else given


def quieten_decoders() -> None:
    """Keep OpenCV and FFmpeg from writing to stderr what is told here in a line, unless a user asks them."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")


@contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether Ctrl-C was pressed in this block; pressed again, it interrupts.

    An exception in the midst of a line or a picture would leave half of it in the file.
    """
    pressed = False

    def press(_number: int, _frame: Any) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _check_targets(source: str, *targets: str | None) -> None:
    """Refuse to write over the input, and a plot of a kind that is unknown, before any work is done."""
    for target in targets:
        if target not in (None, "-") and Path(target).resolve() == Path(source).resolve():
            raise ConfigError(f"{target}: this is the input; give the output another name")
    *_, timeline = targets
    if timeline is not None and Path(timeline).suffix.lower() not in PLOTS:
        raise ConfigError(f"{timeline}: the plot's name must end in {', '.join(PLOTS)}")


def _sinks(
    clip: Video, seen: Timeline, out: str | None, jsonl: str | None, csv_file: str | None, plot: str | None
) -> Iterator[Any]:
    """Give a context manager of a Sink for everything that was asked for."""
    if out is not None:
        yield _drawn(Path(out), clip)
    if jsonl is not None:
        yield _json_lines(jsonl)
    if csv_file is not None:
        yield _csv_rows(csv_file)
    if plot is not None:
        yield _plotted(Path(plot), seen)


def _keep(seen: Timeline) -> Sink:
    return lambda faces: seen.add(faces.time, [(face.id, face) for face in faces])


def _complaints() -> Sink:
    told = 0

    def complain(faces: FrameFaces) -> None:
        nonlocal told
        if faces.error is not None:
            told += 1
            if told <= SHOWN_FAULTS:
                console.complain(faces.error)

    return complain


@contextmanager
def _drawn(path: Path, clip: Video) -> Iterator[Sink]:
    from facekit.encoding import written_video

    with written_video(path, clip.rate, None if clip.live else Path(clip.name)) as write:

        def draw(faces: FrameFaces) -> None:
            if faces.error is None:
                write(faces.draw(), faces.time)

        yield draw


@contextmanager
def _json_lines(target: str) -> Iterator[Sink]:
    with written(target) as stream:

        def write(faces: FrameFaces) -> None:
            stream.write(faces.to_json() + "\n")

        yield write


@contextmanager
def _csv_rows(target: str) -> Iterator[Sink]:
    from facekit.video import FRAME_COLUMNS

    with written(target) as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(FRAME_COLUMNS)
        yield lambda faces: table.writerows(faces.to_rows() or [faces.to_empty_row()])


@contextmanager
def _plotted(path: Path, seen: Timeline) -> Iterator[Sink]:
    from facekit.writing import write_atomically

    yield lambda _faces: None
    picture = io.BytesIO()
    seen.plot().savefig(picture, format=path.suffix[1:].lower(), dpi=150)
    write_atomically(path, picture.getvalue())


def _summary(clip: Video, seen: Timeline, progress: _Progress) -> Iterator[str]:
    """Give what was found, in a line for the video and one for each of the people seen longest."""
    people, seconds = seen.people(), progress.seconds()
    of_all = f" of {clip.count}" if progress.interrupted and clip.count else ""
    stopped = "stopped after " if progress.interrupted else ""
    damaged = f", {progress.faults} damaged" if progress.faults else ""
    yield (
        f"{clip.name}: {stopped}{progress.frames}{of_all} frames{damaged}, {seen.end:.1f} s, "
        f"{len(people)} {'person' if len(people) == 1 else 'people'}; "
        f"took {seconds:.1f} s, {progress.frames / max(seconds, 1e-9):.1f} frames/s"
    )
    for person in people[:10]:
        labels = person.labels.most_common(3)
        shares = ", ".join(f"{label} {count / person.frames:.0%}" for label, count in labels)
        yield f"  #{person.id}: {person.first:.1f} to {person.last:.1f} s, {person.frames} frames: {shares}"
    if len(people) > 10:
        yield f"  and {len(people) - 10} more, each seen in {people[10].frames} frames at most"
