"""Videos in, faces of every frame out: decoding, detection, tracking and smoothing, overlapped in threads."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit import geometry
from facekit.analyzer import FaceAnalyzer, FaceArrays
from facekit.decoding import Frame, Video
from facekit.errors import ConfigError
from facekit.images import MAX_PIXELS, to_gray
from facekit.readahead import ahead
from facekit.results import COLUMNS, Expression, Face, Faces, Keypoints
from facekit.schema import ALIGNED_SIZE, DEFAULT_HEAD, KEYPOINTS
from facekit.smoothing import FaceSmoother
from facekit.tracking import SceneCuts, Track, Tracker

BATCH = 8
"""Most frames that are searched for faces together."""

BATCH_BYTES = 64 << 20
"""Of large frames, only so many go together; three batches are in memory at a time."""


@dataclass(frozen=True, eq=False, repr=False)
class TrackedFace(Face):
    """One face of a frame.

    Attributes
    ----------
    id : int
        The same for the same face over time, from 1.
    """

    id: int

    @property
    def caption(self) -> str:
        """What is written beside the face when it is drawn, such as "#1 happy 93%"."""
        return f"#{self.id} {super().caption}"

    def to_dict(self) -> dict[str, Any]:
        """Give the face as it stands in `facekit video --jsonl`."""
        return {"id": self.id, **super().to_dict()}

    def __repr__(self) -> str:
        return f"#{self.id} {super().__repr__()}"


@dataclass(frozen=True, eq=False, repr=False)
class FrameFaces(Faces):
    """The faces of one frame of a video, largest first.

    Attributes
    ----------
    frame : int
        From 0.
    time : float
        Seconds from the first frame.
    """

    faces: tuple[TrackedFace, ...]
    frame: int = 0
    time: float = 0.0

    def __iter__(self) -> Iterator[TrackedFace]:
        return iter(self.faces)

    def to_dict(self) -> dict[str, Any]:
        """Give the frame's object of `facekit video --jsonl`."""
        return {
            "frame": self.frame,
            "time": round(self.time, 6),
            "width": self.width,
            "height": self.height,
            "error": self.error,
            "faces": [face.to_dict() for face in self],
        }

    def to_rows(self) -> list[list[Any]]:
        """Give one row a face under the names of FRAME_COLUMNS."""
        rows = zip(self.faces, super().to_rows(), strict=True)
        return [[*self._start(), face.id, *row[_BOX:]] for face, row in rows]

    def _columns(self) -> tuple[str, ...]:
        return FRAME_COLUMNS

    def _start(self) -> list[Any]:
        return [self.frame, round(self.time, 6), self.width, self.height, self.error]

    def __repr__(self) -> str:
        return f"frame {self.frame} {super().__repr__()}"


_BOX = COLUMNS.index("x0")

FRAME_COLUMNS = ("frame", "time", "width", "height", "error", "id", *COLUMNS[_BOX:])
"""The columns of `FrameFaces.to_rows` and `facekit video --csv`."""


def analyze_video(
    source: str | os.PathLike[str] | int | Video,
    *,
    every: int = 1,
    raw: bool = False,
    analyzer: FaceAnalyzer | None = None,
) -> Generator[FrameFaces]:
    """Find the faces of a video, frame by frame, with an id for each person.

    Decoding and analysis run in threads of their own, a few frames ahead of whoever takes the results; memory
    does not grow with the length. A frame that cannot be decoded is empty and has its ``error`` set, and so
    is one at the end of a file that is cut off.

    Parameters
    ----------
    source : path, int or Video
        A file that OpenCV can read, or the number of a camera, which gives frames until it is closed and
        drops those that come too fast.
    every : int
        Search for faces in every so many frames; between them, known faces are followed by their keypoints,
        which is faster where the detector is slow. A new face appears up to so many frames late.
    raw : bool
        Do not smooth points, boxes and probabilities over time.
    analyzer : FaceAnalyzer, optional
        One with settings of its own.

    Returns
    -------
    generator of FrameFaces

    Raises
    ------
    ImageError
        The file or camera cannot be read.
    ConfigError
        `every` is less than 1.
    """
    if every < 1:
        raise ConfigError(f"every is {every}; expected 1 (all frames are searched) or more")
    max_pixels = MAX_PIXELS if analyzer is None else analyzer.max_pixels
    video = source if isinstance(source, Video) else Video(source, max_pixels)
    batch = 1 if video.live else max(1, min(BATCH, BATCH_BYTES // (3 * video.width * video.height or 1)))
    frames = ahead(video.frames(), batch, newest=video.live)
    return ahead(_Analysis(analyzer or FaceAnalyzer(), every, raw).run(frames, batch), batch)


@dataclass(frozen=True)
class _Sight:
    """A frame before its faces get ids."""

    frame: Frame
    gray: NDArray[np.uint8]
    cut: bool
    searched: bool


class _Analysis:
    """Takes frames in their order and gives their faces; see `analyze_video`."""

    def __init__(self, analyzer: FaceAnalyzer, every: int, raw: bool) -> None:
        self.analyzer, self.every, self.raw = analyzer, every, raw
        self._tracker, self._cuts = Tracker(), SceneCuts()
        self._smoothers: dict[int, FaceSmoother] = {}
        self._since_search = every

    def run(self, frames: Generator[Frame], batch: int) -> Generator[FrameFaces]:
        """Search whole batches, then go through their frames one by one."""
        try:
            while some := list(islice(frames, batch)):
                sights = [self._look(frame) if frame.image is not None else None for frame in some]
                wanted = (sight.frame.image for sight in sights if sight is not None and sight.searched)
                found = self.analyzer.stream(wanted)
                for frame, sight in zip(some, sights, strict=True):
                    yield self._failed(frame) if sight is None else self._step(sight, found)
        finally:
            frames.close()

    def _failed(self, frame: Frame) -> FrameFaces:
        name = self.analyzer.backend.name
        return FrameFaces((), None, name, error=frame.error, frame=frame.index, time=frame.time)

    def _look(self, frame: Frame) -> _Sight:
        assert frame.image is not None
        gray = to_gray(frame.image)
        cut = self._cuts(gray)
        searched = cut or self._since_search >= self.every
        self._since_search = 1 if searched else self._since_search + 1
        return _Sight(frame, gray, cut, searched)

    def _step(self, sight: _Sight, found: Iterator[Faces]) -> FrameFaces:
        """Give the faces of the next frame; `found` gives those of the frames that were searched."""
        time = sight.frame.time
        if sight.cut:
            self._tracker.forget()
        detected = next(found).faces if sight.searched else ()
        faces = [*self._found(sight, detected)]
        self._tracker.prune(time)
        self._smoothers = {
            track.id: self._smoothers.get(track.id) or FaceSmoother() for track in self._tracker.tracks
        }
        if not self.raw:
            faces = [self._smoothed(face, time) for face in faces]
        faces.sort(key=lambda face: (-float(geometry.areas(face.box)), face.box[1], face.box[0]))
        return FrameFaces(
            tuple(faces),
            sight.frame.image,
            self.analyzer.backend.name,
            frame=sight.frame.index,
            time=time,
        )

    def _found(self, sight: _Sight, faces: Sequence[Face]) -> Iterator[TrackedFace]:
        """Give what the detector found, and known faces that it missed or framed strangely."""
        time = sight.frame.time
        boxes = np.array([face.box for face in faces], np.float32).reshape(-1, 4)
        points = np.array([face.keypoints.xy for face in faces], np.float32).reshape(-1, len(KEYPOINTS), 2)
        scores = np.array([face.score for face in faces])
        looks = self._aligned(sight, [face.image_from_aligned for face in faces])
        tracks = self._tracker.detect(time, boxes, points, scores, looks) if sight.searched else []
        known = {track.id: face for track, face in zip(tracks, faces, strict=True) if track is not None}
        sure = [track for track in tracks if track is not None and track.time == time]
        yield from (_tracked(known[track.id], track.id) for track in sure)
        yield from self._followed(sight)
        for place, track in enumerate(tracks):
            if track is not None and track.time < time:
                self._tracker.take(track, time, boxes[place], points[place], scores[place], looks[place])
                yield _tracked(faces[place], track.id)

    def _followed(self, sight: _Sight) -> Iterator[TrackedFace]:
        """Look for known faces where they should be by now."""
        time = sight.frame.time
        tracks = self._tracker.to_follow(time, sight.searched)
        if not tracks:
            return
        around = geometry.box_around(np.array([track.points_at(time) for track in tracks]))
        crops = np.asarray(geometry.square(around, self.analyzer.backend.header["crop_factor"]), np.float32)
        arrays = self.analyzer.describe([sight.gray], np.zeros(len(tracks), np.int64), crops)
        looks = self._aligned(sight, arrays.image_from_aligned)
        for place, track in enumerate(tracks):
            if self._tracker.follow(track, time, arrays.points_image[place], looks[place]):
                yield self._face(track, arrays, place, sight.frame)

    def _face(self, track: Track, arrays: FaceArrays, place: int, frame: Frame) -> TrackedFace:
        assert frame.image is not None
        classes = self.analyzer.backend.header["model"]["heads"][DEFAULT_HEAD]
        return TrackedFace(
            box=track.box,
            score=track.score,
            keypoints=Keypoints(arrays.points_image[place], arrays.sigma[place]),
            expression=Expression.from_scores(arrays.scores[DEFAULT_HEAD][place], classes),
            image=frame.image,
            image_from_aligned=arrays.image_from_aligned[place],
            id=track.id,
        )

    @staticmethod
    def _aligned(sight: _Sight, image_from_aligned: Iterable[NDArray[Any]]) -> NDArray[np.uint8]:
        looks = [geometry.warp_picture(sight.gray, matrix, ALIGNED_SIZE) for matrix in image_from_aligned]
        return np.array(looks, np.uint8).reshape(-1, ALIGNED_SIZE, ALIGNED_SIZE)

    def _smoothed(self, face: TrackedFace, time: float) -> TrackedFace:
        labels, scores = zip(*face.expression.scores.items(), strict=True)
        points, sigma = face.keypoints.xy, face.keypoints.sigma
        smoother = self._smoothers[face.id]
        box, points, smooth_scores = smoother(time, face.box, points, sigma, np.array(scores))
        expression = Expression.from_scores(smooth_scores, labels)
        return replace(face, box=box, keypoints=Keypoints(points, sigma), expression=expression)


def _tracked(face: Face, name: int) -> TrackedFace:
    return TrackedFace(
        face.box, face.score, face.keypoints, face.expression, face.image, face.image_from_aligned, name
    )
