"""The plan of a run: which pictures make up each part, written down once, so that a stopped run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from facekit.batch.chunks import Chunk
from facekit.errors import ConfigError
from facekit.writing import written

FILE = "plan.json-lines"
"""Not .jsonl, for what ends so in the folder are shards."""
_LONGEST_END = 200
"""Bytes in which the last line, with the totals, has its place."""


@dataclass(frozen=True, slots=True)
class Part:
    """The pictures of one shard.

    Attributes
    ----------
    number : int
        From 0.
    chunks : tuple of Chunk
        In the order in which their pictures stand in the shard.
    """

    number: int
    chunks: tuple[Chunk, ...]

    @property
    def pictures(self) -> int:
        """Count the pictures."""
        return sum(chunk.count for chunk in self.chunks)


@dataclass(frozen=True)
class Plan:
    """A plan that is written down.

    Attributes
    ----------
    path : Path
    settings : dict
        What the results depend on.
    pictures, count : int
        How many pictures and parts there are.
    """

    path: Path
    settings: dict[str, Any]
    pictures: int
    count: int

    def parts(self) -> Iterator[Part]:
        """Read the parts one by one; there may be more than the memory holds."""
        with self.path.open(encoding="utf-8") as lines:
            next(lines)
            for number, line in zip(range(self.count), lines, strict=False):
                yield Part(number, tuple(_chunk(record) for record in json.loads(line)))


def make_plan(folder: Path, settings: dict[str, Any], chunks: Iterable[Chunk], part_size: int) -> Plan:
    """Gather chunks to parts of at least so many pictures, and write them down."""
    path = folder / FILE
    pictures = count = 0
    with written(path) as stream:
        stream.write(json.dumps(settings) + "\n")
        for part in _parts(chunks, part_size):
            stream.write(json.dumps([astuple(chunk) for chunk in part.chunks]) + "\n")
            pictures, count = pictures + part.pictures, count + 1
        stream.write(json.dumps({"pictures": pictures, "parts": count}) + "\n")
    return Plan(path, settings, pictures, count)


def read_plan(folder: Path, settings: dict[str, Any]) -> Plan | None:
    """Read the plan of a run that was begun; None where there is none.

    Raises
    ------
    ConfigError
        The folder holds a run with other settings.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    with path.open("rb") as file:
        begun = json.loads(file.readline())
        file.seek(max(0, path.stat().st_size - _LONGEST_END))
        totals = json.loads(file.read().splitlines()[-1])
    other = [name for name in {**begun, **settings} if begun.get(name) != settings.get(name)]
    if other:
        told = "; ".join(f"{name} {_told(begun, name)}, now {_told(settings, name)}" for name in other)
        raise ConfigError(f"{folder} holds a run with other settings ({told}); choose another --out")
    return Plan(path, settings, totals["pictures"], totals["parts"])


def _parts(chunks: Iterable[Chunk], size: int) -> Iterator[Part]:
    gathered: list[Chunk] = []
    number = pictures = 0
    for chunk in chunks:
        gathered.append(chunk)
        pictures += chunk.count
        if pictures >= size:
            yield Part(number, tuple(gathered))
            gathered, number, pictures = [], number + 1, 0
    if gathered:
        yield Part(number, tuple(gathered))


def _chunk(record: list[Any]) -> Chunk:
    kind, path, count, first, start, names, column, root, stamp = record
    return Chunk(
        kind, path, count, first, start, tuple(names), column, root, None if stamp is None else tuple(stamp)
    )


def _told(settings: dict[str, Any], name: str) -> str:
    value = settings.get(name)
    return os.fspath(value) if isinstance(value, str) else json.dumps(value)
