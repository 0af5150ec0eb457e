"""A batch run from sources to shards: plan it or go on with it, have every part analysed, write its shard."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from facekit.batch.local import LocalEngine
from facekit.batch.plan import Plan, make_plan, read_plan
from facekit.batch.shards import Shards, check_format, locked
from facekit.batch.sources import find_chunks
from facekit.batch.work import Analysis, Outcome, Task
from facekit.errors import ConfigError
from facekit.identity import model_files

ENGINES: Final = ("local", "ray")

Engine = Callable[[Iterable[Task]], Iterator[Outcome]]
"""Gives the outcomes of tasks in any order; see LocalEngine and RayEngine."""


@dataclass(frozen=True)
class BatchConfig:
    """How a run goes.

    Attributes
    ----------
    analysis : Analysis
    engine : str
        One of ENGINES.
    format : str
        One of shards.FORMATS.
    shard_size : int
        Least pictures of a shard.
    workers : int, optional
        Processes or actors; None: as many as there are cores, or as fit.
    column : str, optional
        Of tables; None: the first of tables.COLUMNS that is there.
    root : str, optional
        Where relative paths in lists and tables begin; None: the list's folder.
    address : str, optional
        Of a Ray cluster; None: Ray is started on this machine.
    cpus_per_worker, gpus_per_worker : float, optional
        Of a Ray actor.
    """

    analysis: Analysis = field(default_factory=Analysis)
    engine: str = "local"
    format: str = "jsonl"
    shard_size: int = 1000
    workers: int | None = None
    column: str | None = None
    root: str | None = None
    address: str | None = None
    cpus_per_worker: float | None = None
    gpus_per_worker: float | None = None


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes
    ----------
    pictures, planned : int
        Analysed, in this run or one before it; and all there are.
    failed, faces : int
        Of those in complete shards.
    """

    pictures: int
    planned: int
    failed: int
    faces: int


def run_batch(
    sources: Sequence[str], out: str | os.PathLike[str], config: BatchConfig = BatchConfig()
) -> Iterator[Progress]:
    """Analyse all pictures of the sources and write what was found to a folder, in shards.

    A run that was stopped, at any point and in any way, goes on when it is called again, with either engine,
    and ends with each picture exactly once. Its plan is made once: pictures that come to a folder later are
    not in it.

    Parameters
    ----------
    sources : sequence of str
        See sources.find_chunks.
    out : path-like
        Gets ``part-*.jsonl`` or ``part-*.parquet``, each the objects of `facekit predict --json`, and
        ``manifest.json``, which lists the shards that are complete.
    config : BatchConfig

    Yields
    ------
    Progress
        At the start, whenever some pictures are done, and at the end.

    Raises
    ------
    ConfigError
        A setting or source is not to be had; `out` holds another run, or one that is running.
    FacekitError
        The model cannot be set up; a table cannot be read or was changed.
    """
    _check(sources, config)
    folder = Path(out)
    with locked(folder):
        settings = _settings(sources, config)
        plan = read_plan(folder, settings) or _planned(folder, sources, settings, config)
        shards = Shards(folder, config.format, plan)
        shards.recover()
        yield _progress(shards, 0)
        if len(shards.done) < plan.count:
            yield from _run(plan, shards, _make_engine(config))
        shards.write_manifest()
        yield _progress(shards, 0)


def _check(sources: Sequence[str], config: BatchConfig) -> None:
    check_format(config.format)
    if config.engine not in ENGINES:
        raise ConfigError(f"unknown engine {config.engine!r}: expected {' or '.join(ENGINES)}")
    of_ray = (config.address, config.cpus_per_worker, config.gpus_per_worker)
    if config.engine != "ray" and any(setting is not None for setting in of_ray):
        raise ConfigError("--address, --cpus-per-worker and --gpus-per-worker need --engine ray")
    if config.address is not None and _relative([*sources, *([config.root] if config.root else ())]):
        raise ConfigError("the machines of a cluster stand in other folders; give absolute paths")


def _planned(folder: Path, sources: Sequence[str], settings: dict[str, Any], config: BatchConfig) -> Plan:
    chunks = find_chunks(sources, config.analysis.batch_size, config.shard_size, config.column, config.root)
    return make_plan(folder, settings, chunks, config.shard_size)


def _run(plan: Plan, shards: Shards, engine: Engine) -> Iterator[Progress]:
    """Put the outcomes of a part's tasks together, and write them when all are there."""
    sizes = {}
    open_parts: dict[int, dict[int, Outcome]] = {}

    def tasks() -> Iterator[Task]:
        for part in plan.parts():
            if part.number not in shards.done:
                sizes[part.number] = len(part.chunks)
                for place, chunk in enumerate(part.chunks):
                    yield Task(part.number, place, chunk)

    waiting = 0
    outcomes: Any = engine(tasks())
    with closing(outcomes):
        for outcome in outcomes:
            gathered = open_parts.setdefault(outcome.part, {})
            gathered[outcome.place] = outcome
            waiting += len(outcome.lines)
            if len(gathered) == sizes[outcome.part]:
                shards.write(outcome.part, [gathered[place] for place in range(len(gathered))])
                waiting -= sum(len(one.lines) for one in gathered.values())
                del open_parts[outcome.part], sizes[outcome.part]
            yield _progress(shards, waiting)


def _progress(shards: Shards, waiting: int) -> Progress:
    return Progress(shards.pictures + waiting, shards.plan.pictures, shards.failed, shards.faces)


def _make_engine(config: BatchConfig) -> Engine:
    if config.engine == "local":
        return LocalEngine(config.analysis, config.workers)
    from facekit.batch.ray_engine import RayEngine, Resources

    wanted = Resources(config.workers, config.cpus_per_worker, config.gpus_per_worker)
    return RayEngine(config.analysis, wanted, config.address)


def _settings(sources: Sequence[str], config: BatchConfig) -> dict[str, Any]:
    """Give what a run's results depend on; another device, engine or number of workers may go on with it."""
    analysis = asdict(config.analysis)
    del analysis["device"], analysis["allow_private"]
    return {
        "sources": list(sources),
        "below": str(Path.cwd()) if _relative(sources) else None,
        "column": config.column,
        "root": config.root,
        "format": config.format,
        "shard_size": config.shard_size,
        **analysis,
        **model_files(analysis["weights"], analysis["detector"], analysis["detector_model"]),
    }


def _relative(paths: Iterable[str]) -> bool:
    """Tell whether one of the paths begins where this process stands."""
    return any("://" not in path and not Path(path).is_absolute() for path in paths)
