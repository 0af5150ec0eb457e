"""What a worker does with a chunk: read, decode, analyse, and give the lines of `facekit predict --json`."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from facekit.backends import choose_backend
from facekit.batch.chunks import Chunk
from facekit.batch.sources import read_chunk
from facekit.errors import ImageError
from facekit.images import MAX_PIXELS, read_image
from facekit.results import Faces

if TYPE_CHECKING:
    from facekit.analyzer import FaceAnalyzer


@dataclass(frozen=True)
class Analysis:
    """How pictures are analysed; see FaceAnalyzer.

    Attributes
    ----------
    device : str
        auto takes the accelerators in turns, a worker each.
    """

    device: str = "auto"
    detector: str = "auto"
    precision: str = "auto"
    weights: str = "default"
    detector_model: str | None = None
    min_score: float | None = None
    min_face: float | None = None
    max_faces: int | None = None
    max_pixels: int = MAX_PIXELS
    allow_private: bool = False
    batch_size: int = 32
    backend: str = "auto"


@dataclass(frozen=True)
class Task:
    """A chunk with its place in the run: the part, and the place in that."""

    part: int
    place: int
    chunk: Chunk


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes
    ----------
    part, place : int
        The task's.
    lines : list of str
        A JSON object a picture, in their order.
    failed, faces : int
        Pictures that could not be read; faces that were found.
    """

    part: int
    place: int
    lines: list[str] = field(default_factory=list)
    failed: int = 0
    faces: int = 0


class Worker:
    """Holds the model of one process and gives the outcome of tasks.

    Parameters
    ----------
    analysis : Analysis
    number : int
        Of this worker among those of its machine: which accelerator is its own.
    """

    def __init__(self, analysis: Analysis, number: int = 0) -> None:
        use_one_thread()
        self.analysis = analysis
        self.analyzer = _make_analyzer(analysis, number)

    def __call__(self, task: Task, only: int | None = None) -> Outcome:
        """Analyse the pictures of a task, or only the one at that place in the chunk.

        Raises
        ------
        DatasetError
            The chunk's container was changed.
        """
        lines, failed, found = [], 0, 0
        for faces in self._analyse(task.chunk, only):
            lines.append(faces.to_json())
            failed += faces.error is not None
            found += len(faces)
        missing = (task.chunk.count if only is None else 1) - len(lines)
        lines += [self._failed(task.chunk.path, "ends before this picture").to_json()] * missing
        return Outcome(task.part, task.place, lines, failed + missing, found)

    def _analyse(self, chunk: Chunk, only: int | None) -> Iterator[Faces]:
        """Give each picture's result, holding only a batch of pictures at a time."""
        names: deque[str | Faces] = deque()

        def readable() -> Iterator[NDArray[np.uint8]]:
            for place, (name, source) in enumerate(read_chunk(chunk)):
                if only not in (None, place):
                    continue
                try:
                    picture = self._read(source)
                except ImageError as error:
                    names.append(self._failed(name, str(error)))
                else:
                    names.append(name)
                    yield picture

        for faces in self.analyzer.stream(readable()):
            while isinstance(names[0], Faces):
                yield names.popleft()  # type: ignore[misc]  # it is one
            yield faces.named(str(names.popleft()))
        yield from names  # type: ignore[misc]  # what came after the last readable one

    def _read(self, source: str | bytes | ImageError) -> NDArray[np.uint8]:
        if isinstance(source, ImageError):
            raise source
        return read_image(
            source, max_pixels=self.analysis.max_pixels, allow_private=self.analysis.allow_private
        )

    def _failed(self, name: str, error: str) -> Faces:
        told = error if name in error else f"{name}: {error.removeprefix('bytes: ')}"
        return Faces.failed(name, self.analyzer.backend.name, told)


def join_singles(task: Task, singles: Iterable[Outcome | None]) -> Outcome:
    """Join the outcomes of a task's pictures, analysed one by one; None: the picture killed its worker."""
    outcomes = list(singles)
    weights = next((json.loads(one.lines[0])["weights"] for one in outcomes if one is not None), "")
    lines = []
    for (name, _), outcome in zip(read_chunk(task.chunk), outcomes, strict=True):
        error = f"{name}: the worker process died of this picture, or ran out of memory"
        lines += [Faces.failed(name, weights, error).to_json()] if outcome is None else outcome.lines
    failed = sum(1 if one is None else one.failed for one in outcomes)
    return Outcome(
        task.part, task.place, lines, failed, sum(one.faces for one in outcomes if one is not None)
    )


def use_one_thread() -> None:
    """Let this process compute in one thread: there are as many processes as cores.

    The numbers then do not depend on how many there are, either.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    import cv2

    cv2.setNumThreads(1)


def _make_analyzer(analysis: Analysis, number: int) -> FaceAnalyzer:
    from facekit.analyzer import FaceAnalyzer

    backend, _ = choose_backend(analysis.backend, analysis.weights, analysis.device, analysis.precision)
    options: dict[str, Any] = dict(vars(analysis))
    if backend == "torch":
        import torch

        torch.set_num_threads(1)
        if analysis.device in ("auto", "cuda") and torch.cuda.device_count() > 1:
            options["device"] = f"cuda:{number % torch.cuda.device_count()}"
    return FaceAnalyzer(**options)
