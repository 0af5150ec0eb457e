"""Micro-batches: pictures of requests that come at the same time go through the network together."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from facekit.serving.settings import Limits

Answer = dict[str, Any]
"""One object of `facekit predict --json`."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Upload:
    """A picture that came.

    Attributes
    ----------
    name : str or None
        As its sender calls it.
    data : bytes
        As encoded.
    pixels : int
        As its header says.
    """

    name: str | None
    data: bytes
    pixels: int


@dataclass(frozen=True)
class _Job:
    upload: Upload
    answer: Future[Answer] = field(default_factory=Future)


class Batcher:
    """One thread that gathers pictures for a moment and analyses them as one list.

    Parameters
    ----------
    analyse : callable
        Takes the uploads of a batch and gives their answers, in order.
    limits : Limits
    """

    def __init__(self, analyse: Callable[[Sequence[Upload]], list[Answer]], limits: Limits) -> None:
        self._analyse, self._limits = analyse, limits
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="facekit-batches", daemon=True)
        self._thread.start()

    async def submit(self, uploads: Sequence[Upload]) -> list[Answer]:
        """Give the answers of pictures in order; for a cancelled caller nothing more is begun."""
        jobs = [_Job(upload) for upload in uploads]
        with self._changed:
            self._waiting.extend(jobs)
            self._changed.notify_all()
        return await asyncio.gather(*(asyncio.wrap_future(job.answer) for job in jobs))

    def close(self) -> None:
        """Finish what is waiting and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._gather():
            wanted = [job for job in batch if job.answer.set_running_or_notify_cancel()]
            if wanted:
                self._answer(wanted)

    def _gather(self) -> list[_Job]:
        """Wait for a picture, and a moment for more; an empty batch means the end."""
        limits = self._limits
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            self._changed.wait_for(
                lambda: len(self._waiting) >= limits.batch or self._closed, limits.batch_seconds
            )
            batch: list[_Job] = []
            pixels = 0
            while self._waiting and len(batch) < limits.batch:
                pixels += self._waiting[0].upload.pixels
                if batch and pixels > limits.batch_pixels:
                    break
                batch.append(self._waiting.popleft())
            return batch

    def _answer(self, batch: Sequence[_Job]) -> None:
        """Analyse a batch; where that fails, each picture alone, so that one cannot spoil the others."""
        try:
            answers = self._analyse([job.upload for job in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
                return
            _log.exception("a batch of %d pictures failed; each is tried alone", len(batch))
            for job in batch:
                self._answer([job])
            return
        for job, answer in zip(batch, answers, strict=True):
            job.answer.set_result(answer)
