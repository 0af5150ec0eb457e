"""Results files: their place, their form, and the file that holds a run until it is complete."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import facekit
from facekit.benchmarking.machine import describe, device_name, load, machine_name
from facekit.benchmarking.measuring import Figure, Setting
from facekit.identity import model_files
from facekit.writing import write_atomically

RESULTS = Path("benchmarks") / "results"
"""Where results lie in a checkout, and below the current folder elsewhere."""


def schema() -> dict[str, Any]:
    """Give the JSON schema (2020-12) of results files."""
    text = (resources.files("facekit.benchmarking") / "schema.json").read_text()
    read: dict[str, Any] = json.loads(text)
    return read


def write_result(
    suite: str,
    device: str,
    command: str,
    body: Mapping[str, Any],
    out: Path = RESULTS,
    *,
    quick: bool = False,
) -> Path:
    """Write ``OUT/<version>/<suite>--<machine>--<device>.json`` and give its path.

    A quick run's file ends in ``--quick.json``: it is a first impression, of which no table is made.

    Parameters
    ----------
    device : str
        As file names take it; see machine.device_name.
    body : mapping
        Comes after what every file holds, and may say it better.
    """
    mark = "--quick" if quick else ""
    name = f"{suite}--{machine_name()}--{device}{mark}.json"
    record = {
        "suite": suite,
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe(),
        **body,
    }
    path = out / facekit.__version__ / name
    write_atomically(path, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
    return path


class ScriptRun:
    """A run of a script: how long it takes, and the load of the machine before it."""

    def __init__(self) -> None:
        self._started, self._load_before = time.time(), load()

    def body(
        self, weights: str, figures: Iterable[Mapping[str, Any]], skipped: Iterable[Mapping[str, str]] = ()
    ) -> dict[str, Any]:
        """Give the body of the results file, see `write_result`."""
        return {
            "quick": False,
            "weights": weights,
            "seconds": round(time.time() - self._started, 1),
            "load_before": self._load_before,
            "skipped": list(skipped),
            "figures": list(figures),
        }


class Progress:
    """The cases of a run that are done, on disk, so that an interrupted run goes on where it stopped.

    Parameters
    ----------
    out : Path
        Folder of the results.
    setting : Setting
        Another setting, version or machine is another run.
    """

    def __init__(self, out: Path, setting: Setting) -> None:
        self._run = {
            "version": facekit.__version__,
            "machine": machine_name(),
            "device": device_name(setting.device),
            "quick": setting.quick,
            "weights": setting.weights,
            "model_files": model_files(setting.weights),
            "data": str(setting.data),
            "fer2013": str(setting.fer2013),
        }
        self.path = (
            out / facekit.__version__ / f".running--{self._run['machine']}--{self._run['device']}.jsonl"
        )
        self._done: dict[tuple[str, str], dict[str, Any]] = {}
        lines = self.path.read_text().splitlines() if self.path.is_file() else []
        if lines and json.loads(lines[0]) == self._run:
            for record in map(json.loads, lines[1:]):
                self._done[record["suite"], record["case"]] = record

    def get(self, suite: str, case: str) -> dict[str, Any] | None:
        """Give what a case that is done brought: its figures, or why it was skipped."""
        return self._done.get((suite, case))

    def add(
        self, suite: str, case: str, figures: list[Figure], skipped: str | None, seconds: float
    ) -> dict[str, Any]:
        """Note a case as done."""
        record = {"suite": suite, "case": case, "figures": figures, "skipped": skipped, "seconds": seconds}
        self._done[suite, case] = record
        self._write()
        return record

    def drop(self, suites: Iterable[str]) -> None:
        """Forget suites of a run that is complete; with the last one the file goes."""
        gone = set(suites)
        self._done = {key: record for key, record in self._done.items() if key[0] not in gone}
        if self._done:
            self._write()
        else:
            self.path.unlink(missing_ok=True)

    def _write(self) -> None:
        lines = [self._run, *self._done.values()]
        write_atomically(self.path, "".join(json.dumps(line) + "\n" for line in lines).encode())
