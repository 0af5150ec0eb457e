"""Iterators that run ahead in a thread of their own, a bounded number of items before whoever takes them."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from queue import Empty, Full, Queue
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Generator[T], depth: int, *, newest: bool = False) -> Generator[T]:
    """Give what a generator gives, which runs meanwhile in another thread.

    An exception of `items` is raised here, in its place. When this generator is closed, `items` is closed in
    its thread before `close` returns.

    Parameters
    ----------
    items : generator
    depth : int
        Items that may wait; beyond that the thread waits.
    newest : bool
        Let the oldest waiting item go instead of waiting: for sources that do not wait, such as cameras.
    """
    waiting: Queue[tuple[str, T | BaseException | None]] = Queue(depth)
    closed = threading.Event()

    def put(item: T) -> None:
        while newest:
            try:
                waiting.put_nowait(("item", item))
                return
            except Full:
                with suppress(Empty):
                    waiting.get_nowait()
        waiting.put(("item", item))

    def work() -> None:
        try:
            for item in items:
                put(item)
                if closed.is_set():
                    break
            items.close()
        except BaseException as error:
            waiting.put(("error", error))
        else:
            waiting.put(("end", None))

    thread = threading.Thread(target=work, name="facekit-ahead", daemon=True)
    thread.start()
    try:
        yield from _taken(waiting)
    finally:
        closed.set()
        while thread.is_alive():  # it may wait for room, once for an item and once for the end
            with suppress(Empty):
                waiting.get_nowait()
            thread.join(0.01)


def _taken(waiting: Queue[tuple[str, T | BaseException | None]]) -> Iterator[T]:
    while True:
        kind, value = waiting.get()
        if kind == "end":
            return
        if isinstance(value, BaseException) and kind == "error":
            raise value
        yield value  # type: ignore[misc]  # an item is a T
