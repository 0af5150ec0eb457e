"""How everything is timed: in turns, after a warm-up, with synchronised clocks and fixed threads."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

Figure = dict[str, Any]
"""A line of a results file: ``name``, ``setting``, ``unit``, and ``median`` and spread, or ``value``."""

Call = Callable[[], object]


@dataclass(frozen=True)
class Setting:
    """What a run of suites was asked for.

    Attributes
    ----------
    device : torch.device
        Runs the networks.
    quick : bool
        A first impression within minutes: fewer sizes and repeats.
    weights : str
        A shipped name or a file.
    data : Path or None
        Folder of labelled data, laid out as docs/data.md tells.
    fer2013 : Path or None
        FER2013's CSV file.
    """

    device: torch.device
    quick: bool = False
    weights: str = "default"
    data: Path | None = None
    fer2013: Path | None = None

    def csv_of_fer2013(self) -> Path:
        """Give FER2013's file; UnavailableError where none is named."""
        if self.fer2013 is None:
            raise UnavailableError("needs FER2013: give its CSV file by --fer2013")
        return self.fer2013


@dataclass(frozen=True)
class Case:
    """One measurement of a suite: the smallest thing that an interrupted run repeats.

    Attributes
    ----------
    name : str
    seconds : float
        About what it takes on two processor cores of 2023, or on one accelerator.
    run : callable
        Gives the figures; raises UnavailableError where it cannot.
    """

    name: str
    seconds: float
    run: Callable[[], list[Figure]]


class UnavailableError(Exception):
    """A measurement cannot be taken here; the text says why, and is published in its place."""


class Clock:
    """Times calls on a device, until the device is done with them.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # A reading must be long against the clock's own cost, which on an accelerator is a launch queue's.
        self.shortest = 0.002 if device.type == "cpu" else 0.02

    def seconds(self, call: Call, times: int = 1) -> float:
        """Give the seconds of one call, the mean of `times` calls in a row."""
        if self.device.type == "cuda":
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            torch.cuda.synchronize(self.device)
            start.record()
            for _ in range(times):
                call()
            stop.record()
            stop.synchronize()
            return float(start.elapsed_time(stop)) / 1e3 / times
        self._wait()
        started = time.perf_counter()
        for _ in range(times):
            call()
        self._wait()
        return (time.perf_counter() - started) / times

    def _wait(self) -> None:
        if self.device.type == "mps":
            torch.mps.synchronize()


def in_turns(
    calls: Mapping[str, Call],
    clock: Clock,
    *,
    seconds: float,
    least: int = 5,
    most: int = 200,
    warm_up: int = 2,
) -> dict[str, list[float]]:
    """Time calls in turns, so that a busy machine is busy for all of them alike.

    Parameters
    ----------
    calls : mapping of name to callable
    clock : Clock
    seconds : float
        Rounds are repeated for about this long,
    least, most : int
        but at least and at most so often.
    warm_up : int
        Rounds that do not count.

    Returns
    -------
    dict of name to seconds of one call, by round
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    in_a_row = {}
    for name, call in calls.items():
        for _ in range(warm_up):
            took = clock.seconds(call)
        in_a_row[name] = max(1, math.ceil(clock.shortest / max(took, 1e-9)))
    started = time.perf_counter()
    for count in range(most):
        if count >= least and time.perf_counter() - started > seconds:
            break
        for name, call in calls.items():
            times[name].append(clock.seconds(call, in_a_row[name]))
    return times


def timing(name: str, times: Sequence[float], unit: str = "ms", items: float = 1, **setting: Any) -> Figure:
    """Give the median and quartiles of repeats.

    Parameters
    ----------
    times : sequence of float, seconds
    unit : str
        "ms" gives milliseconds an item, everything else items a second.
    items : float
        Done in one such time.
    """
    values = np.asarray(times) * 1e3 / items if unit == "ms" else items / np.asarray(times)
    low, median, high = (rounded(value) for value in np.percentile(values, [25, 50, 75]))
    spread = {"median": median, "quartiles": [low, high], "repeats": len(values)}
    return {"name": name, "setting": setting, "unit": unit, **spread}


def value(name: str, number: float | None, unit: str, **setting: Any) -> Figure:
    """Give a figure that is counted or taken once; None where there is none to give."""
    return {
        "name": name,
        "setting": setting,
        "unit": unit,
        "value": None if number is None else rounded(number),
    }


def rounded(number: float) -> float:
    """Give a number to five significant digits."""
    return float(f"{number:.5g}")


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch and OpenCV compute with so many threads."""
    import cv2

    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(count)
    cv2.setNumThreads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
