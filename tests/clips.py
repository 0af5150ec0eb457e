"""Small videos that tests share: a real face on known paths, and what cameras and accidents make of files."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np

from facekit.detection import BoxFraming, Detections
from facekit.schema import BOX_FACTOR

RATE = 25
SIZE = 240, 180
FACE = np.array([224.0, 118.0])
"""Where the astronaut's face is, pixels of the whole portrait."""

Picture = np.ndarray


def portrait_at(x: float, y: float, scale: float = 1.0, background: Picture | None = None) -> Picture:
    """Give a view (180, 240, 3) uint8 RGB with the astronaut's face centred at (x, y)."""
    from skimage.data import astronaut

    matrix = np.array([[scale, 0, x - scale * FACE[0]], [0, scale, y - scale * FACE[1]]])
    view = cv2.warpAffine(astronaut(), matrix, SIZE, borderMode=cv2.BORDER_REFLECT)
    if background is None:
        return view
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]]
    inside = (abs(columns - x) < 55 * scale) & (abs(rows - y) < 65 * scale)
    return np.where(inside[..., None], view, background)


def write_clip(path: Path, pictures: Iterable[Picture], code: str = "mp4v", rate: float = RATE) -> Path:
    """Write pictures (H, W, 3) uint8 RGB of one size as a video."""
    writer = None
    for picture in pictures:
        if writer is None:
            size = picture.shape[1], picture.shape[0]
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), rate, size)
            assert writer.isOpened()
        writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


class KnownFaces:
    """A detector that says what it is told, picture by picture: places (x, y) or (x, y, side) of faces."""

    name = "known"
    face_from_box = BoxFraming((0.0, 0.053), 1 / BOX_FACTOR)

    def __init__(self, boxes_of: Callable[[int], list[tuple[float, ...]]], side: float = 76) -> None:
        self.boxes_of, self.side, self.calls = boxes_of, side, 0

    def __call__(self, images: Iterable[Picture]) -> list[Detections]:
        return [self._next() for _ in images]

    def _next(self) -> Detections:
        centres = self.boxes_of(self.calls)
        self.calls += 1
        sized = [(x, y, side[0] if side else self.side) for x, y, *side in centres]
        boxes = [(x - side / 2, y - side / 2, x + side / 2, y + side / 2) for x, y, side in sized]
        return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.ones(len(boxes), np.float32))


def with_times(data: bytes, runs: list[tuple[int, float]]) -> bytes:
    """Give an MP4 file's bytes with other times: so many frames of so many seconds each, run by run."""
    scale = struct.unpack(">I", _find(data, "moov/trak/mdia/mdhd")[12:16])[0]
    entries = b"".join(struct.pack(">II", count, round(step * scale)) for count, step in runs)
    table = struct.pack(">II", 0, len(runs)) + entries
    data = _changed(data, ["moov", "trak", "mdia", "minf", "stbl", "stts"], lambda _: table)
    return _changed(data, ["moov", "trak", "edts", "elst"], lambda body: struct.pack(">II", 0, 0) + body[:0])


def turned(data: bytes) -> bytes:
    """Give an MP4 file's bytes with the matrix of a telephone held upright: turned right by 90 degrees."""
    one = 1 << 16
    matrix = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    return _changed(data, ["moov", "trak", "tkhd"], lambda body: body[:40] + matrix + body[76:])


def _boxes(data: bytes) -> list[tuple[str, bytes]]:
    found, place = [], 0
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        found.append((kind.decode("latin-1"), data[place + 8 : place + length]))
        place += length
    return found


def _find(data: bytes, path: str) -> bytes:
    for name in path.split("/"):
        data = dict(_boxes(data))[name]
    return data


def _changed(data: bytes, path: list[str], change: Callable[[bytes], bytes]) -> bytes:
    result = b""
    for kind, body in _boxes(data):
        if kind == path[0]:
            body = change(body) if len(path) == 1 else _changed(body, path[1:], change)
        result += struct.pack(">I4s", len(body) + 8, kind.encode("latin-1")) + body
    return result
