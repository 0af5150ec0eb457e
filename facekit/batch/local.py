"""The engine for one machine: processes that read, decode and analyse, a bounded number of chunks ahead."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_any
from typing import Any

from facekit.backends import cores
from facekit.batch.work import Analysis, Outcome, Task, Worker, join_singles
from facekit.errors import ConfigError

AHEAD = 2
"""Tasks a worker that wait or run; more would only fill the memory."""


class LocalEngine:
    """Runs tasks in processes of this machine.

    A worker that dies takes nothing with it: what it may have worked on runs again, one task at a time, and
    a picture that kills its worker every time becomes one that failed.

    Parameters
    ----------
    analysis : Analysis
    workers : int, optional
        Processes; None: one a core.
    """

    def __init__(self, analysis: Analysis, workers: int | None = None) -> None:
        self.analysis, self.workers = analysis, workers or cores()
        self._context = multiprocessing.get_context("spawn")
        self._started = self._context.Value("i", 0)
        self._pool = self._new_pool()

    def __call__(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Give the outcomes of tasks in the order in which they come.

        Raises
        ------
        FacekitError
            The model cannot be set up; a source was changed.
        """
        waiting = iter(tasks)
        suspects: deque[Task] = deque()
        running: dict[Future[Outcome], Task] = {}
        try:
            while True:
                if suspects and not running:
                    yield self._alone(suspects.popleft())
                    continue
                while not suspects and len(running) < AHEAD * self.workers:
                    task = next(waiting, None)
                    if task is None:
                        break
                    try:
                        running[self._pool.submit(_analyse, task)] = task
                    except BrokenProcessPool:
                        suspects.append(task)
                if not running and not suspects:
                    return
                done = wait(running, return_when=FIRST_COMPLETED).done if running else ()
                for future in done:
                    task = running.pop(future)
                    if isinstance(future.exception(), BrokenProcessPool):
                        suspects.append(task)
                    else:
                        yield future.result()
                if suspects and not running:
                    self._renew()
        finally:
            self.close()

    def close(self) -> None:
        """End the processes, without waiting for what they do."""
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()

    def _alone(self, task: Task) -> Outcome:
        """Run a task that was there when a worker died, with no other beside it."""
        try:
            return self._pool.submit(_analyse, task).result()
        except BrokenProcessPool:
            self._renew()
        try:
            self._pool.submit(_ready).result()
        except BrokenProcessPool as error:
            raise ConfigError(
                "the worker processes die before they can work: too little memory, or a library is missing; "
                "try `facekit predict` on one picture"
            ) from error
        return join_singles(task, self._singly(task))

    def _singly(self, task: Task) -> Iterator[Outcome | None]:
        """Run the pictures of a task one by one; None for one that kills its worker."""
        for place in range(task.chunk.count):
            try:
                yield self._pool.submit(_analyse, task, place).result()
            except BrokenProcessPool:
                self._renew()
                yield None

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self.workers, self._context, initializer=_start, initargs=(self.analysis, self._started)
        )

    def _renew(self) -> None:
        self.close()
        self._pool = self._new_pool()


_analysis: Analysis | None = None
_number = 0
_worker: Worker | None = None


def _start(analysis: Analysis, started: Any) -> None:
    """Set up a worker process; the model comes with the first task, whose errors reach who asked."""
    global _analysis, _number
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the run from above
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with started.get_lock():
        _analysis, _number = analysis, started.value
        started.value += 1


def _die_with_parent() -> None:
    """End this process when the one that started it is gone, killed perhaps, and no task comes any more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_any([parent.sentinel])
        os._exit(1)


def _ready() -> None:
    global _worker
    if _worker is None:
        assert _analysis is not None
        _worker = Worker(_analysis, _number)


def _analyse(task: Task, only: int | None = None) -> Outcome:
    _ready()
    assert _worker is not None
    return _worker(task, only)
