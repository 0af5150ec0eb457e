from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from data.small_sets import FACE, save, write_pts
from distributed_worker import network, trained
from safetensors.torch import load_file
from torch import Tensor

from facekit import fitting
from facekit.distributed import ALONE, Processes, join_processes
from facekit.errors import ConfigError
from facekit.schema import EXPRESSIONS
from facekit.weights import load_weights

TESTS = Path(__file__).parent

TINY = """
[model]
width = 16
blocks = [1, 1, 1, 1]
[fit]
epochs = 6
[aligner]
epochs = 1
[keypoints]
batch_size = 4
[expression]
batch_size = 4
"""


def torchrun(*arguments: object) -> subprocess.Popen[str]:
    """Start two processes that meet on the loopback interface."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    path = os.pathsep.join(str(folder) for folder in (TESTS.parent, TESTS.parent / "cli", TESTS))
    environment = os.environ | {"PYTHONPATH": path, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*command, *map(str, arguments)], env=environment, text=True, stdout=pipe, stderr=pipe
    )


def history(out: Path) -> list[dict[str, float]]:
    """Read history.csv without the seconds."""
    rows = csv.DictReader((out / "history.csv").read_text().splitlines())
    return [{name: float(value) for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """What two processes left of distributed_worker's training, and of its second half."""
    folder = tmp_path_factory.mktemp("two")
    with torchrun(TESTS / "distributed_worker.py", folder) as running:
        assert running.wait(600) == 0, running.stderr.read()
    return folder


def test_two_processes_train_as_one_does(two, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "multiplies_bfloat16", lambda device: False)
    weights = trained(tmp_path)
    for alone, shared in zip(history(tmp_path), history(two), strict=True):
        assert shared == pytest.approx(alone, rel=1e-3)
    start, found = network().state_dict(), load_file(two / "rank-0.safetensors")
    # Rounding alone makes about 1%, as it does when the rows of a batch change places.
    assert distance(found, weights) < 0.03 * distance(weights, start)


def distance(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    return sum(float((first[name].double() - second[name]).square().sum()) for name in first) ** 0.5


def test_processes_end_with_the_same_weights(two):
    first, second = (load_file(two / f"rank-{rank}.safetensors") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_two_processes_resume_to_the_result_of_an_unbroken_run(two):
    whole, resumed = (load_file(out / "rank-1.safetensors") for out in (two, two / "broken"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert history(two) == history(two / "broken")


@pytest.mark.slow
def test_a_process_that_dies_stops_the_training_and_resume_goes_on(tmp_path):
    config = tmp_path / "tiny.toml"
    config.write_text(TINY)
    for place in range(12):
        save(tmp_path / "points" / f"person{place}_1.png", place)
        write_pts(tmp_path / "points" / f"person{place}_1.pts", FACE)
        save(tmp_path / "faces" / EXPRESSIONS[place % 3] / f"{place}.png", 100 + place, (48, 48))
        save(tmp_path / "to_align" / EXPRESSIONS[place % 3] / f"{place}.png", 200 + place, (60, 60))
    out = tmp_path / "run"
    data = (tmp_path / name for name in ("points", "faces", "to_align"))
    command = ("-m", "facekit_cli.main", "train", "--config", config, "--data", *data, "--out", out)
    # torchrun looks seldom, so that the other process says what it noticed before it is told to end.
    with torchrun("--monitor-interval", 5, *command) as running:
        epochs = [running.stdout.readline().partition("  ")[0] for _ in range(2)]
        assert epochs == ["epoch 1/1", "epoch 1/6"], running.stderr.read()
        os.kill(process_of_rank(running.pid, 1), signal.SIGKILL)
        said = running.communicate(timeout=300)[1]
    assert running.returncode == 1
    assert "Signal 9 (SIGKILL) received by PID" in said
    assert "facekit: another process of this training has ended, torchrun tells which" in said
    broken = history(out)
    assert len(broken) < 6

    with torchrun(*command, "--resume") as running:
        said, complaint = running.communicate(timeout=600)
    assert running.returncode == 0, complaint
    epochs = [line.split()[1] for line in said.splitlines()]  # each once: one process reports
    assert epochs == [f"{epoch}/6" for epoch in range(len(broken) + 1, 7)]
    assert history(out)[: len(broken)] == broken
    assert (out / "aligner" / "to_align.safetensors").is_file()
    assert load_weights(out).header["name"] == "default-v1"


def process_of_rank(parent: int, rank: int) -> int:
    """Find torchrun's process of a rank by its environment."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"no process of rank {rank}")


def test_one_process_shares_nothing():
    assert join_processes(torch.device("cpu")) == (ALONE, torch.device("cpu"))
    alone = network()
    assert ALONE.shared(alone) is alone


def test_a_batch_smaller_than_the_processes_is_refused_in_training():
    shared = Processes(0, 4).shared(network())
    with pytest.raises(ConfigError, match="a batch of 3 is too small for 4 processes"):
        shared(torch.zeros(3, 1, 48, 48), "expression")
    with torch.inference_mode():
        assert len(shared.eval()(torch.zeros(3, 1, 48, 48), "expression")["fer2013"]) == 3


def test_a_device_that_processes_cannot_share_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="not on mps"):
        join_processes(torch.device("mps"))
