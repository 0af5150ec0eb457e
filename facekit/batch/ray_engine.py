"""The engine for a cluster: Ray Data maps the tasks over a pool of actors that each hold the model."""

from __future__ import annotations

import logging
import math
import os
import pickle
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from facekit.backends import cores
from facekit.batch.work import Analysis, Outcome, Task, Worker, join_singles
from facekit.errors import ConfigError

TASKS_A_WORKER = 1000
"""Tasks of a window: the driver holds so many, and the pool is started anew for the next."""

BLOCKS_A_WORKER = 16
"""Least blocks of a window: so finely is the work shared out."""

TASKS_A_BLOCK = 32
"""Most tasks of a block, which is lost work when a worker dies."""

RETRIES = 3
"""Times that a task whose actor dies is tried again before its pictures are tried one by one."""

MOST_LOST = 16
"""Blocks of a window that may be lost so; more are no fault of single pictures."""

CPU_SHARES = (1.0, 0.5, 0.25, 0.1, 0.05)
GPU_SHARE = 0.25
"""Of an accelerator, for a worker: decoding keeps a core busy meanwhile."""

STORE_BYTES = 256 << 20
"""Of the object store of a Ray that is started here: it holds lines of JSON, no pictures."""

# Read when Ray is imported. Ray's processes listen on the loopback interface only, as on macOS; they do not
# report home; the workers get as much of a busy core as others; and `uv run` is not run again for each.
_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}


@dataclass(frozen=True)
class Resources:
    """What the actors get.

    Attributes
    ----------
    workers : int or None
        Actors; None: as many as fit.
    cpus : float or None
        Of each; None: 1, or less where so many workers would not fit.
    gpus : float or None
        Of each; None: GPU_SHARE where the cluster has accelerators, else 0.
    """

    workers: int | None = None
    cpus: float | None = None
    gpus: float | None = None


class RayEngine:
    """Runs tasks on Ray; what a worker or actor that dies was at runs again elsewhere.

    Parameters
    ----------
    analysis : Analysis
    resources : Resources
    address : str, optional
        Of a cluster; None: Ray is started on this machine, for this run.

    Raises
    ------
    ConfigError
        Ray is not installed, no cluster answers, or the workers do not fit.
    """

    def __init__(
        self, analysis: Analysis, resources: Resources = Resources(), address: str | None = None
    ) -> None:
        self.analysis = analysis
        self._ray = _import_ray(local=address is None)
        self._owned = not self._ray.is_initialized()
        if self._owned:
            _connect(self._ray, address)
        try:
            nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            self.pool = fit_pool(nodes, resources, accelerated=analysis.device != "cpu")
        except BaseException:
            self.close()
            raise

    def __call__(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Give the outcomes of tasks in the order in which they come.

        Raises
        ------
        FacekitError
            The model cannot be set up; a source was changed.
        """
        assert self.pool.workers is not None
        waiting = iter(tasks)
        try:
            while window := list(islice(waiting, TASKS_A_WORKER * self.pool.workers)):
                yield from self._window(window)
        finally:
            self.close()

    def close(self) -> None:
        """Leave the cluster; a Ray that was started for this run ends."""
        if self._owned:
            self._ray.shutdown()

    def _window(self, window: Sequence[Task]) -> Iterator[Outcome]:
        missing = {(task.part, task.place): task for task in window}
        for _, outcome in self._map([(task, None) for task in window]):
            if missing.pop((outcome.part, outcome.place), None) is not None:
                yield outcome
        for task in missing.values():
            places = range(task.chunk.count)
            single = dict(self._map([(task, place) for place in places]))
            if not single and len(missing) == len(window):
                raise ConfigError(
                    "all actors died: too little memory, or facekit is not installed on the cluster"
                )
            yield join_singles(task, (single.get(place) for place in places))

    def _map(self, work: Sequence[tuple[Task, int | None]]) -> Iterator[tuple[int | None, Outcome]]:
        """Run tasks, or single pictures of one; what its actors died of is not among the outcomes."""
        workers = min(self.pool.workers or 1, len(work))
        blocks = max(math.ceil(len(work) / TASKS_A_BLOCK), min(len(work), BLOCKS_A_WORKER * workers))
        if work[0][1] is not None:  # single pictures, of which one may take its whole block with it
            blocks = len(work)
        items = [{"work": pickle.dumps(one)} for one in work]
        mapped = self._ray.data.from_items(items, override_num_blocks=blocks).map_batches(
            _Actor,
            fn_constructor_kwargs={"analysis": self.analysis},
            batch_size=1,
            batch_format="pyarrow",
            compute=self._ray.data.ActorPoolStrategy(size=workers),
            num_cpus=self.pool.cpus,
            num_gpus=self.pool.gpus,
            max_restarts=-1,
            max_task_retries=RETRIES,
        )
        for row in mapped.iter_rows():
            only, outcome = pickle.loads(row["outcome"])
            if isinstance(outcome, Exception):
                raise outcome
            yield only, outcome


class _Actor:
    """Holds a worker; errors are given back as values, so that they reach the caller as they are."""

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self._worker: Worker | None = None

    def __call__(self, batch: Any) -> Any:
        import pyarrow

        answers = []
        for packed in batch["work"].to_pylist():
            task, only = pickle.loads(packed)
            try:
                if self._worker is None:
                    self._worker = Worker(self._analysis)  # Ray shows an actor its own accelerator only
                answer: Outcome | Exception = self._worker(task, only)
            except Exception as error:
                answer = error
            answers.append(pickle.dumps((only, answer)))
        return pyarrow.table({"outcome": pyarrow.array(answers, pyarrow.binary())})


def fit_pool(
    nodes: Sequence[Mapping[str, float]], wanted: Resources, *, accelerated: bool = True
) -> Resources:
    """Size the pool of actors by what the machines have, so that it can start.

    Parameters
    ----------
    nodes : sequence of mapping
        Each machine's "CPU" and "GPU".
    wanted : Resources
    accelerated : bool
        Use accelerators where there are some.

    Raises
    ------
    ConfigError
        It does not fit.
    """
    with_gpus = accelerated and any(node.get("GPU", 0) for node in nodes)
    gpus = wanted.gpus if wanted.gpus is not None else GPU_SHARE if with_gpus else 0.0
    for cpus in CPU_SHARES if wanted.cpus is None else (wanted.cpus,):
        room = sum(_room(node, cpus, gpus) for node in nodes)
        if room >= (wanted.workers or 1):
            return Resources(wanted.workers or room, cpus, gpus)
    have = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes[:8])
    raise ConfigError(
        f"{wanted.workers or 1} workers of {cpus:g} CPUs and {gpus:g} GPUs each do not fit: there is room "
        f"for {room} on {len(nodes)} machines ({have}); lower --workers, --cpus-per-worker, --gpus-per-worker"
    )


def _room(node: Mapping[str, float], cpus: float, gpus: float) -> int:
    """Count the workers that fit on a machine; an accelerator is shared out, not joined with another."""
    rooms = [math.floor(node.get("CPU", 0) / cpus + 1e-6)]
    if gpus:
        have = math.floor(node.get("GPU", 0))
        rooms.append(have * math.floor(1 / gpus + 1e-6) if gpus <= 1 else math.floor(have / gpus))
    return min(rooms)


def _import_ray(*, local: bool) -> Any:
    for name, value in _ENVIRONMENT.items():
        if local or name == "RAY_USAGE_STATS_ENABLED":
            os.environ.setdefault(name, value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what Ray itself calls
            import ray
            import ray.data
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error}; --engine ray needs it: install facekit with its extra `ray`") from error
    return ray


def _connect(ray: Any, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if address is None:
            ray.init(
                "local",
                num_cpus=cores(),
                include_dashboard=False,
                object_store_memory=STORE_BYTES,
                **quiet,
            )
        else:
            try:
                ray.init(address, **quiet)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise ConfigError(
                    f"no Ray cluster answers at {address}: {error}; one that asks for a token needs "
                    "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
                ) from error
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = MOST_LOST
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it shows what it tries again as an error
