from __future__ import annotations

import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import made_runs
import pytest
from made_runs import album, alive, analysis, children, finish, manifest, rows, start

from facekit.batch.ray_engine import RayEngine, Resources, fit_pool
from facekit.batch.running import BatchConfig, run_batch
from facekit.errors import ConfigError


@pytest.mark.parametrize(
    ("nodes", "wanted", "pool"),
    [
        ([{"CPU": 2}], Resources(), (2, 1, 0)),
        ([{"CPU": 2}], Resources(workers=4), (4, 0.5, 0)),
        ([{"CPU": 1}], Resources(workers=2), (2, 0.5, 0)),
        ([{"CPU": 8}], Resources(cpus=0.5), (16, 0.5, 0)),
        ([{"CPU": 16, "GPU": 1}], Resources(), (4, 1, 0.25)),
        ([{"CPU": 2, "GPU": 1}], Resources(gpus=0.1), (2, 1, 0.1)),
        ([{"CPU": 3}, {"CPU": 3}, {}], Resources(cpus=2), (2, 2, 0)),
        ([{"CPU": 16, "GPU": 4}, {"CPU": 16}], Resources(), (16, 1, 0.25)),
    ],
)
def test_the_pool_is_sized_by_what_the_machines_have(nodes, wanted, pool):
    assert fit_pool(nodes, wanted) == Resources(*pool)


def test_without_accelerators_wanted_all_cores_work():
    assert fit_pool([{"CPU": 16, "GPU": 1}], Resources(), accelerated=False) == Resources(16, 1, 0)


@pytest.mark.parametrize(
    ("nodes", "wanted", "message"),
    [
        ([{"CPU": 2}], Resources(workers=3, cpus=1), "3 workers of 1 CPUs .* room for 2 on 1 machines"),
        ([{"CPU": 1}, {"CPU": 1}], Resources(cpus=2), "room for 0 on 2 machines"),
        ([{"CPU": 2}], Resources(gpus=0.5), "0.5 GPUs each do not fit"),
        ([{"CPU": 1}], Resources(workers=100), "room for 20 "),
    ],
)
def test_a_pool_that_cannot_start_is_refused_instead_of_waiting_for_ever(nodes, wanted, message):
    with pytest.raises(ConfigError, match=message):
        fit_pool(nodes, wanted)


def test_without_ray_a_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="with its extra `ray`"):
        RayEngine(analysis(tmp_path))


def listening(pids: dict[int, str]) -> set[str]:
    """Give the addresses, in hexadecimal, on which processes wait for connections."""
    opened = set()
    for pid in pids:
        try:
            opened |= {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        except OSError:
            continue
    found = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:]:
            cells = line.split()
            if cells[3] == "0A" and f"socket:[{cells[9]}]" in opened:
                found.add(cells[1].partition(":")[0])
    return found


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.mark.slow
def test_ray_gives_what_one_machine_gives_though_the_run_and_then_an_actor_are_killed(tmp_path):
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    pictures, out, small = album(tmp_path / "album", 160), tmp_path / "out", analysis(tmp_path, batch_size=4)
    list(run_batch([str(pictures)], tmp_path / "local", BatchConfig(small, shard_size=8)))
    options = ("--backend", "onnx", "--detector", "none", "--weights", small.weights, "--batch-size", 4)
    command = (pictures, "--out", out, *options, "--shard-size", 8, "--engine", "ray", "--workers", 2)

    def shards() -> int:
        return len(list(out.glob("part-*")))

    def actors(run) -> list[int]:
        return [pid for pid, name in children(run.pid).items() if "MapWorker" in name]

    killed = start(*command)
    made_runs.wait_until(shards, killed)
    below = children(killed.pid)
    assert listening(below) <= LOOPBACK
    assert listening(below)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    before = shards()
    assert 1 <= before < 20
    going = start(*command)
    made_runs.wait_until(lambda: len(actors(going)) == 2, going, every=0.3)
    found = actors(going)
    made_runs.wait_until(lambda: shards() > before, going)
    os.kill(found[0], signal.SIGKILL)
    code, said, complaint = finish(going)
    assert code == 1, complaint
    assert "Traceback" not in complaint
    told = said.splitlines()[-1]  # Ray has its say about the actor before
    assert told == f"{out}: 160 pictures, 159 faces, 1 pictures failed"
    assert rows(out) == rows(tmp_path / "local")
    assert manifest(out)["complete"]
    made_runs.wait_until(lambda: not any(map(alive, below)), every=0.1)
