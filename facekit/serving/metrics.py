"""Counts and durations of one worker, as Prometheus reads them."""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
PICTURES = (1, 2, 4, 8, 16, 32)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """Counts values up to each of some bounds; not locked."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, labels: str) -> Iterator[str]:
        """Give the series of the histogram, each with these labels."""
        total = 0
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{{labels},le="{bound}"}} {total}'
        yield f"{name}_sum{{{labels}}} {self._sum:.6f}"
        yield f"{name}_count{{{labels}}} {total}"


class Metrics:
    """What one worker has done; threads may share it.

    Every series has the label `worker`, the process's number, since each worker answers for itself.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worker = f'worker="{os.getpid()}"'
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: dict[str, Histogram] = {}
        self._pictures: Counter[str] = Counter({"read": 0, "failed": 0})
        self._batches = Histogram(PICTURES)
        self._faces = 0
        self.active = 0
        self.ready = False

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request that ended; `path` is one of the service's own."""
        with self._lock:
            self._requests[path, status] += 1
            self._seconds.setdefault(path, Histogram(SECONDS)).observe(seconds)

    def picture(self, faces: int | None) -> None:
        """Count a picture by its number of faces, or None where it could not be read."""
        with self._lock:
            self._pictures["failed" if faces is None else "read"] += 1
            self._faces += faces or 0

    def batch(self, pictures: int) -> None:
        """Count a batch."""
        with self._lock:
            self._batches.observe(pictures)

    def text(self) -> str:
        """Give everything in Prometheus's text format."""
        with self._lock:
            return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        worker = self._worker
        yield from _head("facekit_requests_total", "counter", "Requests that ended; 499: the client left.")
        for (path, status), count in sorted(self._requests.items()):
            yield f'facekit_requests_total{{{worker},path="{path}",status="{status}"}} {count}'
        yield from _head("facekit_request_seconds", "histogram", "From a request's head to its answer's end.")
        for path, histogram in sorted(self._seconds.items()):
            yield from histogram.lines("facekit_request_seconds", f'{worker},path="{path}"')
        yield from _head("facekit_pictures_total", "counter", "Pictures that came.")
        for outcome, count in self._pictures.items():
            yield f'facekit_pictures_total{{{worker},outcome="{outcome}"}} {count}'
        yield from _head("facekit_batch_pictures", "histogram", "Pictures analysed together.")
        yield from self._batches.lines("facekit_batch_pictures", worker)
        yield from self._single("facekit_faces_total", "counter", "Faces found.", self._faces)
        yield from self._single("facekit_requests_active", "gauge", "Requests under way.", self.active)
        yield from self._single("facekit_ready", "gauge", "Whether the models are loaded.", int(self.ready))
        if (memory := _resident_bytes()) is not None:
            yield from self._single("process_resident_memory_bytes", "gauge", "Memory in use.", memory)

    def _single(self, name: str, kind: str, text: str, value: int) -> Iterator[str]:
        yield from _head(name, kind, text)
        yield f"{name}{{{self._worker}}} {value}"


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _resident_bytes() -> int | None:
    file = Path("/proc/self/statm")
    if not file.is_file():
        return None
    return int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
