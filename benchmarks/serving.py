"""The service under load: rates, response times, memory, and what micro-batches gain.

    python benchmarks/serving.py [--seconds N] [--clients N]

NASA's portrait (scikit-image's astronaut, 512x512, JPEG) is sent over loopback by clients that each wait
for their answer before they send again. One client, all clients against a service without batches, and
all against one with batches take turns, round after round, so that a busy machine is busy for all alike.
Kept are medians and quartiles over the rounds, and the processor time that the service spent on a
picture: other work on the machine distorts it less than the clock. Then the load: 5% of the uploads are
broken, and with 2% the client leaves in mid-upload. Clients and service share the machine's cores. A run
of less than 10 minutes is a quick one.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage.data import astronaut

from facekit.benchmarking.results import write_result

FULL = 600
ROUNDS = 7
BROKEN, LEAVING = 0.05, 0.02
CLIENT_TIMEOUT = 60
LEFT = "client left"

SERVICE = """
from facekit.serving.server import serve
from facekit.serving.settings import Limits, ServiceConfig
serve(ServiceConfig(limits=Limits(batch={batch})), "127.0.0.1", 0, lambda address: print(address, flush=True))
"""


@dataclass
class Tally:
    """What the clients saw."""

    outcomes: Counter[str] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, outcome: str, seconds: float) -> None:
        """Count what became of a request."""
        with self.lock:
            self.outcomes[outcome] += 1
            if outcome == "200":
                self.times.append(seconds)

    def told(self, seconds: float) -> dict[str, Any]:
        """Give rate and times of the pictures that were answered."""
        p50, p95, p99 = (np.percentile(self.times, [50, 95, 99]) * 1e3).round(1).tolist()
        return {
            "pictures_per_second": round(len(self.times) / seconds, 2),
            "ms": {"p50": p50, "p95": p95, "p99": p99},
            "outcomes": dict(sorted(self.outcomes.items())),
        }


@dataclass(frozen=True)
class Service:
    """A service that runs."""

    port: int
    pid: int

    def processor_seconds(self) -> float:
        """Give the processor time it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def service(batch: int) -> Iterator[Service]:
    """Run a service with batches of so many pictures at most."""
    command = [sys.executable, "-c", SERVICE.format(batch=batch)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        yield Service(int(process.stdout.readline().rpartition(":")[2]), process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        if process.wait() != 0:
            raise SystemExit("the service did not end well")


def resident(port: int) -> int:
    """Give the service's memory, bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CLIENT_TIMEOUT)
    connection.request("GET", "/metrics")
    found = re.search(
        r"^process_resident_memory_bytes{.*} (\d+)$", connection.getresponse().read().decode(), re.M
    )
    connection.close()
    assert found
    return int(found[1])


class Client(threading.Thread):
    """Sends one picture after the other until it is time."""

    def __init__(self, port: int, picture: bytes, end: float, tally: Tally, faults: bool, seed: int) -> None:
        super().__init__()
        self._picture, self._end, self._tally = picture, end, tally
        self._random = random.Random(seed) if faults else None
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CLIENT_TIMEOUT)

    def run(self) -> None:
        """Send until the end."""
        while time.monotonic() < self._end:
            chance = self._random.random() if self._random else 1.0
            start = time.perf_counter()
            try:
                outcome = self._leave() if chance < LEAVING else self._send(chance < LEAVING + BROKEN)
            except (OSError, http.client.HTTPException) as error:
                outcome = type(error).__name__
                self._connection.close()
            self._tally.note(outcome, time.perf_counter() - start)
        self._connection.close()

    def _send(self, broken: bool) -> str:
        """Send a picture, whole or cut off, and give the status that came."""
        body = self._picture[: len(self._picture) // 3] if broken else self._picture
        self._connection.request("POST", "/v1/analyze", body, {"Content-Type": "image/jpeg"})
        answer = self._connection.getresponse()
        told = answer.read()
        if answer.status == 200 and not broken and not json.loads(told)[0]["faces"]:
            return "200 without the face"
        if answer.status == 429:
            time.sleep(float(answer.headers["Retry-After"]))
        return str(answer.status)

    def _leave(self) -> str:
        self._connection.close()
        self._connection.putrequest("POST", "/v1/analyze")
        self._connection.putheader("Content-Length", str(len(self._picture)))
        self._connection.endheaders(self._picture[: len(self._picture) // 2])
        self._connection.close()
        return LEFT


def drive(
    at: Service, picture: bytes, clients: int, seconds: float, *, faults: bool = False
) -> dict[str, Any]:
    """Let clients work for a time and tell what they saw, and what it took the service."""
    port, before = at.port, at.processor_seconds()
    tally, end, start = Tally(), time.monotonic() + seconds, time.monotonic()
    threads = [Client(port, picture, end, tally, faults, seed) for seed in range(clients)]
    for thread in threads:
        thread.start()
    memory = []
    while time.monotonic() < end:
        time.sleep(seconds / 10)
        memory.append(round(resident(port) / 1e6, 1))
    for thread in threads:
        thread.join()
    spent = (at.processor_seconds() - before) / max(len(tally.times), 1)
    told = tally.told(time.monotonic() - start)
    return {"clients": clients, **told, "processor_ms": round(spent * 1e3, 2), "memory_mb": memory}


def take_turns(
    ways: dict[str, tuple[Service, int]], picture: bytes, seconds: float
) -> dict[str, dict[str, Any]]:
    """Drive each way in turn, ROUNDS times, and give medians and quartiles over the rounds."""
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (at, clients) in ways.items():
            rounds[name].append(drive(at, picture, clients, seconds / ROUNDS))
    return {
        name: {
            "clients": told[0]["clients"],
            "pictures_per_second": quartiles([one["pictures_per_second"] for one in told]),
            "p50_ms": quartiles([one["ms"]["p50"] for one in told]),
            "processor_ms": quartiles([one["processor_ms"] for one in told]),
            "outcomes": dict(sum((Counter(one["outcomes"]) for one in told), Counter())),
        }
        for name, told in rounds.items()
    }


def quartiles(values: list[float]) -> dict[str, Any]:
    """Give the median and both quartiles."""
    low, median, high = np.percentile(values, [25, 50, 75]).round(2).tolist()
    return {"median": median, "quartiles": [low, high]}


def main() -> None:
    """Measure, write the results file, and fail where the service did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=FULL)
    parser.add_argument("--clients", type=int, default=32)
    arguments = parser.parse_args()
    buffer = io.BytesIO()
    Image.fromarray(astronaut()).save(buffer, "JPEG", quality=95)
    picture, short = buffer.getvalue(), max(arguments.seconds / 10, 14)
    with service(batch=1) as single, service(batch=16) as batching:
        ways = {
            "one client": (single, 1),
            "without batches": (single, arguments.clients),
            "with batches": (batching, arguments.clients),
        }
        runs: dict[str, Any] = take_turns(ways, picture, short)
        for name, run in runs.items():
            print(f"{name:16} {run['pictures_per_second']} a second, processor ms {run['processor_ms']}")
        runs["load"] = load = drive(batching, picture, arguments.clients, arguments.seconds, faults=True)
    print(f"load             {load['pictures_per_second']} a second, ms {load['ms']}, {load['outcomes']}")
    print(f"memory, MB       {load['memory_mb']}")
    command = f"python benchmarks/serving.py --seconds {arguments.seconds:g} --clients {arguments.clients}"
    body = {"picture": "astronaut 512x512", "rounds": ROUNDS, "seconds": arguments.seconds, "runs": runs}
    print(write_result("serving", "cpu", command, body, quick=arguments.seconds < FULL))
    unwanted = {key for run in runs.values() for key in run["outcomes"]} - {"200", "400", "429", "503", LEFT}
    if unwanted:
        raise SystemExit(f"outcomes that should not be: {', '.join(sorted(unwanted))}")


if __name__ == "__main__":
    main()
