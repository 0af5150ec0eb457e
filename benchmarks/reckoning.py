"""What very many pictures take on a cluster: nodes, hours and money, from the figures of `scale.py`.

    python benchmarks/reckoning.py [--pictures N] [--nodes N] [--cores N] [--price P] ...

The inputs beside the results file are stated, not measured: see Cluster. A core of the cluster is taken to be
like the one that was measured, and all cores to work as well as those did beside each other.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

PICTURES = 100_000_000


@dataclass(frozen=True)
class Cluster:
    """A cluster that one can rent.

    Attributes
    ----------
    name : str
    nodes, cores : int
        Machines, and whole processor cores of each: of cores that run two threads, half of the threads.
    memory : float
        GiB of a machine.
    price : float
        US dollars an hour of a machine, on demand: a stated input, to be replaced by one's own.
    network : float
        Gbit/s of a machine.
    store : float
        GB/s that the shared storage gives to all machines together.
    """

    name: str = "10 c7a.16xlarge (AWS, AMD EPYC of the fourth generation)"
    nodes: int = 10
    cores: int = 64
    memory: float = 128
    price: float = 3.284
    network: float = 25
    store: float = 2.0


@dataclass(frozen=True)
class Reckoning:
    """What a run takes.

    Attributes
    ----------
    rates : dict of str to float
        Pictures a second that each part of the cluster could do.
    bottleneck : str
        The slowest of them.
    hours, dollars : float
    memory : float
        GiB of a machine's workers.
    output : float
        GB of all shards.
    """

    rates: dict[str, float]
    bottleneck: str
    hours: float
    dollars: float
    memory: float
    output: float


def reckon(
    result: dict[str, Any], backend: str, cluster: Cluster = Cluster(), pictures: int = PICTURES
) -> Reckoning:
    """Reckon what so many pictures take.

    Parameters
    ----------
    result : dict
        The results file of `scale.py`; of its runs, that with the most workers counts.
    backend : str
    """
    told = {figure["name"]: figure["value"] for figure in runs(result, backend)}
    size = next(figure["value"] for figure in result["figures"] if figure["name"] == "input")
    workers = cluster.nodes * cluster.cores
    rates = {
        "workers": workers * 1e3 / told["picture"],
        "writing process": 1e3 / told["writing process"],
        "network": cluster.nodes * cluster.network * 1e9 / 8 / size,
        "storage": cluster.store * 1e9 / size,
    }
    bottleneck = min(rates, key=rates.__getitem__)
    hours = pictures / rates[bottleneck] / 3600
    dollars = hours * cluster.nodes * cluster.price
    memory = cluster.cores * told["memory a worker"] / 1024
    return Reckoning(rates, bottleneck, hours, dollars, memory, pictures * told["output"] / 1e9)


def backends(result: dict[str, Any]) -> list[str]:
    """Give the backends of a results file, in its order."""
    told = (figure["setting"].get("backend") for figure in result["figures"])
    return list(dict.fromkeys(backend for backend in told if backend is not None))


def runs(result: dict[str, Any], backend: str) -> list[dict[str, Any]]:
    """Give the figures of the run with the most workers."""
    shown = [
        figure
        for figure in result["figures"]
        if figure["setting"].get("backend") == backend and "workers" in figure["setting"]
    ]
    most = max(figure["setting"]["workers"] for figure in shown)
    return [figure for figure in shown if figure["setting"]["workers"] == most]


def main() -> None:
    """Reckon from the newest results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pictures", type=int, default=PICTURES)
    for one in fields(Cluster):
        parser.add_argument(f"--{one.name}", type=type(one.default), default=one.default)
    options = vars(parser.parse_args())
    pictures = options.pop("pictures")
    path = max((Path(__file__).parent / "results").glob("*/scale--*--cpu.json"))
    result = json.loads(path.read_text())
    for backend in backends(result):
        told = reckon(result, backend, Cluster(**options), pictures)
        print(
            f"{backend}: {pictures:,} pictures take {told.hours:.1f} h and ${told.dollars:,.0f}; "
            f"the {told.bottleneck} limit it"
        )
        print("  " + ", ".join(f"{name} {rate:,.0f}/s" for name, rate in told.rates.items()))
        print(f"  {told.memory:.1f} GiB a machine, {told.output:,.0f} GB of shards")


if __name__ == "__main__":
    main()
