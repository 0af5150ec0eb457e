"""Video files that get their name when all of them is written, with the sound of the video they came from."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit.errors import ConfigError
from facekit.writing import placed

LONGEST_STILL = 60.0
"""Seconds for which one picture may stand."""

log = logging.getLogger(__name__)

WriteFrame = Callable[[NDArray[np.uint8], float], None]
"""Takes a picture (H, W, 3) uint8 RGB and its time, seconds."""


@contextmanager
def written_video(path: Path, rate: float, sound_from: Path | None = None) -> Iterator[WriteFrame]:
    """Write an MP4 file that appears at its place when the block ends well.

    The file has a constant rate: a picture is repeated until it is the next one's time, and left out where
    two fall on one place, so that it stays in step with the sound whatever the times are. Only a leap by more
    than LONGEST_STILL is shortened to that, as damaged times would fill the disk; what follows then comes too
    early. Without a picture there is no file.

    Parameters
    ----------
    path : Path
        Its name ends in .mp4.
    rate : float
        Frames a second.
    sound_from : Path, optional
        A video whose sound is put in, if there is any and the program ffmpeg is installed.

    Raises
    ------
    ConfigError
        The name does not end in .mp4, or OpenCV cannot write such files.
    """
    if path.suffix.lower() != ".mp4":
        raise ConfigError(f"{path}: videos are written as MP4; give a name that ends in .mp4")
    with placed(path) as temporary:
        frames = _ConstantRate(str(temporary), rate)
        try:
            yield frames.write
        finally:
            frames.close()
        if not frames.count:
            temporary.unlink()
        elif sound_from is not None:
            _add_sound(temporary, sound_from, frames.count / rate)


class _ConstantRate:
    """Brings pictures with times to a file of so many frames a second."""

    def __init__(self, name: str, rate: float) -> None:
        self._name, self._rate, self.count = name, rate, 0
        self._writer: Any = None
        self._size = (0, 0)
        self._last: NDArray[np.uint8] | None = None
        self._time = self._left_out = 0.0

    def write(self, image: NDArray[np.uint8], time: float) -> None:
        import cv2

        if self._writer is None:
            self._size = image.shape[1], image.shape[0]
            self._writer = cv2.VideoWriter(
                self._name, cv2.VideoWriter.fourcc(*"mp4v"), self._rate, self._size
            )
            if not self._writer.isOpened():
                raise ConfigError(
                    f"OpenCV {cv2.__version__} cannot write MP4 files here; see `facekit doctor`"
                )
        picture = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), np.uint8)
        if (picture.shape[1], picture.shape[0]) != self._size:  # streams may change their size
            picture = np.asarray(cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA), np.uint8)
        leap, self._time = time - self._time, time
        if leap > LONGEST_STILL:
            log.warning("the times leap by %.0f s; %.0f s of that are written", leap, LONGEST_STILL)
            self._left_out += leap - LONGEST_STILL
        place = int((time - self._left_out) * self._rate + 0.5)
        while self.count < place:
            self._put(picture if self._last is None else self._last)
        if self.count == place:
            self._put(picture)
        self._last = picture

    def _put(self, picture: NDArray[np.uint8]) -> None:
        self._writer.write(picture)
        self.count += 1

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()


def _add_sound(silent: Path, source: Path, seconds: float) -> None:
    """Put the sound of `source` into a file; as it is if MP4 can hold it, else as AAC."""
    program = shutil.which("ffmpeg")
    if program is None:
        if _mentions_sound(source):
            log.warning("%s: its sound is left out: that takes the program ffmpeg", source)
        return
    both = silent.with_suffix(".sound.mp4")
    inputs = [program, "-v", "error", "-nostdin", "-y", "-i", str(silent), "-i", str(source.resolve())]
    streams = ["-map", "0:v:0", "-map", "1:a?", "-c:v", "copy", "-t", f"{seconds:.6f}"]
    try:
        for codec in ("copy", "aac"):
            command = [*inputs, *streams, "-c:a", codec, "-movflags", "+faststart", str(both)]
            # In a session of its own, or Ctrl-C at the terminal would end it too.
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                start_new_session=True,
            )
            if done.returncode == 0:
                both.replace(silent)
                return
        log.warning("%s: its sound cannot be kept: ffmpeg: %s", source, " ".join(done.stderr.split())[-300:])
    finally:
        both.unlink(missing_ok=True)


def _mentions_sound(path: Path) -> bool:
    """Tell whether a file's start or end names a track of sound: MP4, QuickTime, AVI, Matroska."""
    with path.open("rb") as stream:
        start = stream.read(1 << 20)
        stream.seek(max(0, path.stat().st_size - (1 << 20)))
        ends = start + stream.read()
    return any(
        mark in ends
        for mark in (b"hdlr\0\0\0\0mhlrsoun", b"hdlr\0\0\0\0\0\0\0\0soun", b"auds", b"\x83\x81\x02")
    )
