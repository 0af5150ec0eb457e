"""Runs suites case by case, from where an interrupted run stopped, and writes a results file for each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facekit.benchmarking import load_suite
from facekit.benchmarking.machine import describe, device_name, load
from facekit.benchmarking.measuring import Case, Figure, Setting, UnavailableError
from facekit.benchmarking.results import Progress, write_result
from facekit.weights import find_weights


@dataclass(frozen=True)
class Done:
    """A case that is done.

    Attributes
    ----------
    suite, case : str
    seconds : float
        What it took; 0 for one of an interrupted run before.
    figures : list of Figure
    skipped : str or None
        Why there are none.
    written : Path or None
        The results file, after a suite's last case.
    """

    suite: str
    case: str
    seconds: float
    figures: list[Figure]
    skipped: str | None
    written: Path | None


class Plan:
    """What is still to be measured.

    Parameters
    ----------
    names : sequence of str
        Suites.
    setting : Setting
    out : Path
        Folder of the results; an unfinished run of the same setting there is gone on with.

    Raises
    ------
    ConfigError
        An unknown suite.
    """

    def __init__(self, names: Sequence[str], setting: Setting, out: Path) -> None:
        self.setting, self.out = setting, out
        self.suites: dict[str, list[Case]] = {name: load_suite(name).cases(setting) for name in names}
        self._progress = Progress(out, setting)

    def seconds(self, suite: str) -> float:
        """Give what a suite's cases that are not done will about take."""
        return sum(
            case.seconds for case in self.suites[suite] if self._progress.get(suite, case.name) is None
        )

    def count(self) -> int:
        """Count the cases, done or not."""
        return sum(map(len, self.suites.values()))

    def done(self) -> int:
        """Count the cases that an interrupted run before has done."""
        return sum(
            self._progress.get(suite, case.name) is not None
            for suite, cases in self.suites.items()
            for case in cases
        )

    def run(self, command: str) -> Iterator[Done]:
        """Measure what is not done yet; `command` stands in the results files."""
        load_before = load()
        for suite, cases in self.suites.items():
            records = []
            for case in cases:
                record = self._progress.get(suite, case.name)
                seconds = 0.0
                if record is None:
                    started = time.perf_counter()
                    figures, skipped = _measure(case)
                    seconds = time.perf_counter() - started
                    record = self._progress.add(suite, case.name, figures, skipped, seconds)
                records.append(record)
                path = None if case is not cases[-1] else self._write(suite, command, load_before, records)
                yield Done(suite, case.name, seconds, record["figures"], record["skipped"], path)
        self._progress.drop(self.suites)

    def _write(
        self, suite: str, command: str, load_before: float | None, records: Sequence[dict[str, Any]]
    ) -> Path:
        device = self.setting.device
        body = {
            "machine": describe(device),
            "quick": self.setting.quick,
            "weights": find_weights(self.setting.weights)[0],
            "seconds": round(sum(record["seconds"] for record in records), 1),
            "load_before": load_before,
            "figures": [figure for record in records for figure in record["figures"]],
            "skipped": [
                {"case": record["case"], "reason": record["skipped"]}
                for record in records
                if record["skipped"]
            ],
        }
        return write_result(suite, device_name(device), command, body, self.out, quick=self.setting.quick)


def _measure(case: Case) -> tuple[list[Figure], str | None]:
    try:
        return case.run(), None
    except UnavailableError as reason:
        return [], str(reason)
