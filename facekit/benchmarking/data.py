"""How long labelled data take to be ready: FER2013's CSV for the first time and from the cache, folders."""

from __future__ import annotations

import lzma
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from facekit.benchmarking.measuring import Case, Figure, Setting, timing
from facekit.benchmarking.pictures import as_jpeg
from facekit.data.catalog import load_dataset
from facekit.data.resident import read_pictures

SIDE = 48

_T = TypeVar("_T")


def cases(setting: Setting) -> list[Case]:
    """Give a made FER2013, the real one, and a folder of pictures."""
    rows = 2000 if setting.quick else 20_000
    files = 300 if setting.quick else 3000
    real = [Case("FER2013", 30, partial(_real, setting)), Case("FER2013, xz", 90, partial(_packed, setting))]
    return [
        Case("made FER2013", 5 + rows / 2000, partial(_made, rows)),
        *([] if setting.quick else real),
        Case("class folder", 2 + files / 300, partial(_folder, files)),
    ]


def _made(rows: int) -> list[Figure]:
    """Measure a CSV file of noise in FER2013's form."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fer2013.csv"
        with path.open("w") as file:
            file.write("emotion,pixels,Usage\n")
            for row in range(rows):
                pixels = " ".join(map(str, random.integers(0, 256, SIDE * SIDE).tolist()))
                file.write(f"{row % 7},{pixels},Training\n")
        time.sleep(2.1)  # of a file written within two seconds the cache notes nothing
        return _loads("FER2013's form", path, 3)


def _real(setting: Setting) -> list[Figure]:
    return _loads("FER2013", setting.csv_of_fer2013(), 3)


def _packed(setting: Setting) -> list[Figure]:
    """Measure the CSV file packed by xz."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fer2013.csv.xz"
        with setting.csv_of_fer2013().open("rb") as plain, lzma.open(path, "wb", preset=1) as packed:
            shutil.copyfileobj(plain, packed, 1 << 20)
        time.sleep(2.1)
        return _loads("FER2013, xz", path, 1)


def _loads(name: str, path: Path, repeats: int) -> list[Figure]:
    """Time loads with an empty cache and with a filled one; the file itself is in the system's cache."""
    path.read_bytes()
    first, again, rows = [], [], 0
    for _ in range(repeats):
        with _own_cache():
            taken, dataset = _timed(lambda: load_dataset(path))
            first.append(taken)
            again += [_timed(lambda: load_dataset(path))[0] for _ in range(3)]
            rows = len(dataset)
    return [
        timing(
            kind, times, "rows/s", rows, dataset=name, rows=rows, megabytes=path.stat().st_size // 1_000_000
        )
        for kind, times in (("first load", first), ("cached load", again))
    ]


def _folder(files: int) -> list[Figure]:
    """Time listing and decoding a class folder of 96x96 JPEG files."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for place in range(files):
            path = Path(folder) / ("happy" if place % 2 else "sad") / f"{place:05}.jpg"
            path.parent.mkdir(exist_ok=True)
            coarse = random.integers(0, 256, (12, 12, 3), np.uint8)
            path.write_bytes(as_jpeg(np.repeat(np.repeat(coarse, 8, 0), 8, 1)))
        listed = [_timed(lambda: load_dataset(folder))[0] for _ in range(5)]
        dataset = load_dataset(folder)
        decoded = [_timed(lambda: sum(1 for _ in read_pictures(dataset)))[0] for _ in range(3)]
    return [
        timing(kind, times, "rows/s", files, dataset="class folder", rows=files)
        for kind, times in (("listing", listed), ("decoding", decoded))
    ]


def _timed(call: Callable[[], _T]) -> tuple[float, _T]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


@contextmanager
def _own_cache() -> Iterator[None]:
    """Let the cache be an empty folder."""
    before = os.environ.get("FACEKIT_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FACEKIT_CACHE"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["FACEKIT_CACHE"]
            else:
                os.environ["FACEKIT_CACHE"] = before
