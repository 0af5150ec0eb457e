"""The output of a run: a folder of shards, each whole or not there, and a manifest of what they hold."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from facekit.batch.plan import FILE as PLAN
from facekit.batch.plan import Plan
from facekit.batch.tables import import_pyarrow
from facekit.batch.work import Outcome
from facekit.errors import ConfigError
from facekit.schema import EXPRESSIONS, KEYPOINTS
from facekit.writing import write_atomically

FORMATS = ("jsonl", "parquet")
MANIFEST = "manifest.json"
MANIFEST_EVERY = 5.0
"""Seconds between two manifests of a run; shards that came since are counted anew after a crash."""

MANIFEST_SHARE = 20
"""So many times what the last manifest took passes before the next, for there may be very many shards."""


@dataclass(frozen=True)
class Shard:
    """What the manifest says of a shard."""

    file: str
    pictures: int
    failed: int
    faces: int
    bytes: int


class Shards:
    """The shards of one run.

    Parameters
    ----------
    folder : Path
    format : str
        One of FORMATS.
    plan : Plan

    Attributes
    ----------
    done : dict of int to Shard
        Those that are complete, by their part.
    pictures, failed, faces : int
        In these together.
    """

    def __init__(self, folder: Path, format: str, plan: Plan) -> None:
        self.folder, self.format, self.plan = folder, format, plan
        self.done: dict[int, Shard] = {}
        self.pictures = self.failed = self.faces = 0
        self._next_manifest = 0.0

    def recover(self) -> None:
        """Find the shards that are complete; what a killed run left half-written goes."""
        for kind in (".part-*", f".{MANIFEST}.*", f".{PLAN}.*"):
            for left in self.folder.glob(kind):
                left.unlink()
        listed = {shard.file: shard for shard in self._read_manifest()}
        for part in self.plan.parts():
            path = self._path(part.number)
            if not path.is_file():
                continue
            shard = listed.get(path.name)
            if shard is None or shard.bytes != path.stat().st_size:
                shard = self._counted(path)
            if shard is not None and shard.pictures == part.pictures:  # else cut off
                self._add(part.number, shard)

    def write(self, part: int, outcomes: Sequence[Outcome]) -> None:
        """Write a part's shard, whose lines come from outcomes in their order."""
        lines = [line for outcome in outcomes for line in outcome.lines]
        text = "".join(f"{line}\n" for line in lines).encode()
        data = text if self.format == "jsonl" else _to_parquet(text)
        path = self._path(part)
        write_atomically(path, data)
        failed, faces = sum(one.failed for one in outcomes), sum(one.faces for one in outcomes)
        self._add(part, Shard(path.name, len(lines), failed, faces, len(data)))
        if time.monotonic() > self._next_manifest:
            self.write_manifest()

    def write_manifest(self) -> None:
        """Write down which shards are complete and what they hold."""
        begun = time.monotonic()
        shards = [self.done[part] for part in sorted(self.done)]
        manifest = {
            "complete": len(shards) == self.plan.count,
            "planned": {"pictures": self.plan.pictures, "parts": self.plan.count},
            "pictures": self.pictures,
            "failed": self.failed,
            "faces": self.faces,
            "settings": self.plan.settings,
            "shards": [asdict(shard) for shard in shards],
        }
        write_atomically(self.folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
        ended = time.monotonic()
        self._next_manifest = ended + max(MANIFEST_EVERY, MANIFEST_SHARE * (ended - begun))

    def _add(self, part: int, shard: Shard) -> None:
        self.done[part] = shard
        self.pictures += shard.pictures
        self.failed += shard.failed
        self.faces += shard.faces

    def _path(self, part: int) -> Path:
        return self.folder / f"part-{part:06}.{self.format}"

    def _read_manifest(self) -> list[Shard]:
        path = self.folder / MANIFEST
        if not path.is_file():
            return []
        return [Shard(**shard) for shard in json.loads(path.read_bytes())["shards"]]

    def _counted(self, path: Path) -> Shard | None:
        """Count what a shard holds; None where it is damaged."""
        try:
            rows = read_rows(path)
        except (ValueError, OSError):
            return None
        failed = sum(row["error"] is not None for row in rows)
        faces = sum(len(row["faces"]) for row in rows)
        return Shard(path.name, len(rows), failed, faces, path.stat().st_size)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read a shard: one object of `facekit predict --json` a picture.

    Raises
    ------
    ValueError, OSError
        It is damaged.
    """
    if path.suffix == ".parquet":
        from pyarrow import parquet

        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
        return rows
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a folder for this process, for the run of the block; the lock ends with the process in any case.

    Raises
    ------
    ConfigError
        Another process writes there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows has no such locks
        yield
        return
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"{folder}: another run is writing there; choose another --out") from error
        yield


def check_format(format: str) -> None:
    """Raise ConfigError unless shards can be written in that format here."""
    if format not in FORMATS:
        raise ConfigError(f"unknown format {format!r}: expected {' or '.join(FORMATS)}")
    if format == "parquet":
        import_pyarrow()


def _to_parquet(lines: bytes) -> bytes:
    """Give lines of JSON as a Parquet file of the same objects."""
    import pyarrow
    from pyarrow import json as arrow_json
    from pyarrow import parquet

    if rb"\ud" in lines:  # Parquet's text is UTF-8: bytes of file names that are not become question marks
        texts = [json.dumps(json.loads(line), ensure_ascii=False) for line in lines.splitlines()]
        lines = "".join(f"{text}\n" for text in texts).encode(errors="replace")
    options = arrow_json.ParseOptions(explicit_schema=_schema(pyarrow), unexpected_field_behavior="error")
    # A line of many faces is longer than a block may be by default.
    blocks = arrow_json.ReadOptions(block_size=max(len(lines), 1), use_threads=False)
    table = arrow_json.read_json(io.BytesIO(lines), read_options=blocks, parse_options=options)
    sink = io.BytesIO()
    parquet.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _schema(arrow: Any) -> Any:
    number = arrow.float64()
    expression = arrow.struct(
        [
            ("label", arrow.string()),
            ("confidence", number),
            ("scores", arrow.struct([(name, number) for name in EXPRESSIONS])),
        ]
    )
    face = arrow.struct(
        [
            ("box", arrow.list_(number)),
            ("score", number),
            ("keypoints", arrow.struct([(name, arrow.list_(number)) for name in KEYPOINTS])),
            ("sigma", arrow.struct([(name, number) for name in KEYPOINTS])),
            ("expression", expression),
        ]
    )
    return arrow.schema(
        [
            ("image", arrow.string()),
            ("width", arrow.int32()),
            ("height", arrow.int32()),
            ("weights", arrow.string()),
            ("error", arrow.string()),
            ("faces", arrow.list_(face)),
        ]
    )
