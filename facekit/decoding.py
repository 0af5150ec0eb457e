"""Frames of video files and cameras, upright, with the container's times; what is damaged is told."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from facekit.errors import ImageError
from facekit.images import MAX_PIXELS

USUAL_RATE = 25.0
"""Frames a second where a file does not say."""

SHORTEST_STEP = 1e-3
"""Seconds: times that advance by less do not advance."""

TRIES = 300
"""Reads in a row that may fail before a file counts as ended: a broken frame takes its successors along."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video.

    Attributes
    ----------
    index : int
        From 0; frames that could not be decoded count too.
    time : float
        Seconds from the first frame, as the container says; always increasing.
    image : (H, W, 3) uint8 RGB or None
    error : str or None
        Why there is no picture.
    """

    index: int
    time: float
    image: NDArray[np.uint8] | None
    error: str | None = None


class Video:
    """A video file or a camera, open for reading.

    Parameters
    ----------
    source : path-like or int
        A file, or the number of a camera.
    max_pixels : int
        Videos of larger frames are refused.

    Attributes
    ----------
    name : str
    live : bool
        A camera: it has no end and does not wait.
    width, height : int
        Pixels, after the rotation that the container asks for.
    rate : float
        Frames a second, nominal.
    count : int or None
        Frames, as the container says; some only guess.

    Raises
    ------
    ImageError
        There is no such file or camera, or OpenCV cannot read it.
    """

    def __init__(self, source: str | os.PathLike[str] | int, max_pixels: int = MAX_PIXELS) -> None:
        import cv2

        self.live = isinstance(source, int)
        self.name = f"camera {source}" if isinstance(source, int) else str(source)
        self._path = None if isinstance(source, int) else Path(source)
        if self._path is not None and not self._path.is_file():
            raise ImageError(f"{source}: no such file; check the path")
        self._capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
        if not self._capture.isOpened():
            raise ImageError(self._why_not_open())
        self.width, self.height = (
            int(self._capture.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        if self.width * self.height > max_pixels:
            raise ImageError(
                f"{self.name}: {self.width}x{self.height}; the limit is {max_pixels:,} pixels; shrink it, or "
                "raise max_pixels"
            )
        rate, count = (self._capture.get(key) for key in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        self.rate = float(rate) if 1 <= rate <= 240 else USUAL_RATE
        self.count = int(count) if count > 0 and not self.live else None

    def _why_not_open(self) -> str:
        if self._path is None:
            return f"{self.name} does not open; check that it is there, permitted and not in use"
        missing = missing_bytes(self._path)
        if missing:
            return f"{self.name}: cut off, {missing:,} bytes are missing, its index among them; get it anew"
        return f"{self.name}: not a video that OpenCV can read"

    def frames(self) -> Generator[Frame]:
        """Give all frames, once; the video is closed after that.

        A frame that cannot be decoded comes in its place without a picture. Of a file that is cut off, the
        last frame is one without a picture that says so.
        """
        try:
            yield from self._live_frames() if self.live else self._stored_frames()
        finally:
            self._capture.release()

    def _live_frames(self) -> Generator[Frame]:
        start, index = time.monotonic(), 0
        while self._capture.grab():
            now = time.monotonic() - start
            yield Frame(index, now, self._picture())
            index += 1
        yield Frame(index, time.monotonic() - start, None, f"{self.name} gives no more pictures")

    def _stored_frames(self) -> Generator[Frame]:
        index, last, failed = 0, -1 / self.rate, 0
        while failed < TRIES:
            image = self._picture() if self._capture.grab() else None
            if image is None:
                failed += 1
                continue
            now = self._time_after(last)
            for lost in range(1, failed + 1):
                between = last + (now - last) * lost / (failed + 1)
                yield Frame(index, between, None, f"{self.name}: frame {index} is damaged")
                index += 1
            yield Frame(index, now, image)
            index, last, failed = index + 1, now, 0
        if fault := self._fault_at_end(index):
            yield Frame(index, last + 1 / self.rate, None, fault)

    def _time_after(self, last: float) -> float:
        """Give the time of the frame that was grabbed; damaged files give times that go back, some none."""
        import cv2

        now = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
        return now if now >= last + SHORTEST_STEP else last + 1 / self.rate

    def _picture(self) -> NDArray[np.uint8] | None:
        import cv2

        there, image = self._capture.retrieve()
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8) if there else None

    def _fault_at_end(self, read: int) -> str | None:
        """Say what is missing after the last frame that could be read."""
        assert self._path is not None
        if read == 0:
            return f"{self.name}: no frame can be decoded"
        if missing := missing_bytes(self._path):
            return f"{self.name}: cut off after {read} frames, {missing:,} bytes are missing; get it anew"
        # AVI files list their frames; elsewhere the count may be a guess or include what is not to be shown.
        if self._path.suffix.lower() == ".avi" and self.count is not None and read < self.count:
            return f"{self.name}: damaged, {self.count - read} of {self.count} frames are missing"
        return None


def missing_bytes(path: Path) -> int:
    """Count the bytes by which a file is shorter than its container says: MP4, QuickTime, AVI, Matroska.

    Returns
    -------
    int
        0 where nothing is missing, or the container does not say.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(12)
        if start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            end = _end_of_boxes(stream, size)
        elif start[:4] == b"RIFF":
            end = _end_of_chunks(stream, size)
        elif start[:4] == b"\x1a\x45\xdf\xa3":
            end = _end_of_segment(stream)
        else:
            end = 0
    return max(0, end - size)


def _end_of_boxes(stream: BinaryIO, size: int) -> int:
    """Give where the last outer box of an MP4 or QuickTime file ends."""
    place = 0
    while place + 8 <= size:
        stream.seek(place)
        head = stream.read(16)
        length = struct.unpack(">I", head[:4])[0]
        if length == 1 and len(head) == 16:
            length = struct.unpack(">Q", head[8:])[0]
        if length < 8:  # 0: up to the end of the file
            return 0
        place += length
    return place


def _end_of_chunks(stream: BinaryIO, size: int) -> int:
    """Give where the last outer chunk of an AVI file ends."""
    place = 0
    while place + 8 <= size:
        stream.seek(place)
        mark, length = struct.unpack("<4sI", stream.read(8))
        if mark != b"RIFF" or length in (0, 0xFFFFFFFF):  # a recording that never was finished
            return 0
        place += 8 + length + length % 2
    return place


def _end_of_segment(stream: BinaryIO) -> int:
    """Give where the segment of a Matroska or WebM file ends."""
    place = 4
    for _ in range(2):  # the header's length, then the segment's
        stream.seek(place)
        head = stream.read(8)
        if not head or not head[0]:
            return 0
        width = 9 - head[0].bit_length()
        length = int.from_bytes(head[:width]) & ((1 << 7 * width) - 1)
        if length == (1 << 7 * width) - 1:  # unknown: written while it was recorded
            return 0
        place += width + length + 4
    return place - 4
