"""One to ten thousand pictures: a picture's cost must stay flat, and the memory constant."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from facekit.benchmarking.measuring import Case, Figure, Setting, value
from facekit.benchmarking.pictures import write_album
from facekit.benchmarking.processes import ask

ALBUM = 20
"""Different files, which are read again and again: decoding costs the same each time."""

PROGRAM = """
from itertools import cycle, islice
from facekit import FaceAnalyzer
device, weights, count, folder = sys.argv[1:]
analyzer = FaceAnalyzer(device, weights=weights)
album = sorted(Path(folder).iterdir())
list(analyzer.stream(album[:2]))
started = time.perf_counter()
faces = sum(len(found) for found in analyzer.stream(islice(cycle(album), int(count))))
tell(seconds=time.perf_counter() - started, faces=faces, peak=peak_mebibytes())
"""


def cases(setting: Setting) -> list[Case]:
    """Give every number of pictures."""
    counts = (1, 10, 100) if setting.quick else (1, 10, 100, 1000, 10_000)
    return [
        Case(f"{count:,} pictures", 5 + 0.06 * count, partial(_pictures, setting, count)) for count in counts
    ]


def _pictures(setting: Setting, count: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        write_album(Path(folder), ALBUM)
        told = ask(PROGRAM, setting.device, setting.weights, count, folder)
    return [
        value("time a picture", told["seconds"] * 1e3 / count, "ms", pictures=count, picture="640x480"),
        value("peak memory", told["peak"], "MiB", pictures=count, picture="640x480"),
        value("faces a picture", told["faces"] / count, "faces", pictures=count, picture="640x480"),
    ]
