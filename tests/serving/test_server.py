from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from served import PATIENCE, half_a_request, process, until


def ask(address: str, picture: bytes) -> httpx.Response:
    headers = {"content-type": "image/jpeg"}
    return httpx.post(
        f"{address}/v1/analyze", content=picture, headers=headers, timeout=PATIENCE, trust_env=False
    )


def test_the_service_finds_what_the_analyzer_finds(running, portrait):
    from facekit import FaceAnalyzer

    (expected,) = FaceAnalyzer()(portrait)
    (answer,) = ask(running.address, portrait).json()
    (face,) = answer["faces"]
    assert (answer["width"], answer["height"], answer["error"]) == (512, 512, None)
    assert face["box"] == pytest.approx(expected.box.tolist(), abs=0.01)
    assert face["keypoints"]["nose_tip"] == pytest.approx(expected.keypoints["nose_tip"].tolist(), abs=0.2)
    assert face["expression"]["label"] == expected.expression.label == "happy"


def figures(address: str) -> str:
    return httpx.get(f"{address}/metrics", timeout=PATIENCE, trust_env=False).text


def active(address: str) -> int:
    """Give the number of requests under way."""
    found = re.search(r"^facekit_requests_active{.*} (\d+)$", figures(address), re.MULTILINE)
    assert found
    return int(found[1])


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_sigterm_finishes_requests_in_flight_and_ends_well(small_weights, png):
    with process("--detector", "none", "--weights", small_weights) as service:
        port = int(service.address.rpartition(":")[2])
        uploads = [half_a_request(port, len(png), png[:20]) for _ in range(3)]
        until(lambda: active(service.address) == 3)
        service.popen.send_signal(signal.SIGTERM)
        until(lambda: not accepts(port))
        for upload in uploads:
            upload.send(png[20:])
        for upload in uploads:
            answer = upload.getresponse()
            assert answer.status == 200
            assert len(json.loads(answer.read())[0]["faces"]) == 1
            upload.close()
        assert service.popen.wait(PATIENCE) == 0


def workers_of(pid: int) -> list[int]:
    """Give the processes that answer: the supervisor's children, without multiprocessing's tracker."""
    children = (Path(f"/proc/{pid}/task/{pid}/children")).read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc to find the workers")
def test_a_killed_worker_comes_back_while_the_other_answers(small_weights, png):
    with process("--detector", "none", "--weights", small_weights, "--workers", 2) as service:
        before = workers_of(service.popen.pid)
        assert len(before) == 2
        os.kill(before[0], signal.SIGKILL)
        statuses = []

        def is_back() -> bool:
            time.sleep(0.3)  # leaves the new one some time to load
            statuses.append(ask(service.address, png).status_code)
            now = workers_of(service.popen.pid)
            return len(now) == 2 and before[0] not in now

        until(is_back)
        assert set(statuses) == {200}
        new = next(pid for pid in workers_of(service.popen.pid) if pid not in before)

        def new_one_answers() -> bool:
            time.sleep(0.3)
            with ThreadPoolExecutor(4) as pool:
                texts = pool.map(lambda _: figures(service.address), range(4))
                return any(f'facekit_ready{{worker="{new}"}} 1' in text for text in texts)

        until(new_one_answers)
        assert service.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--weights", "nowhere"], "nowhere"),
        (["--weights", "nowhere", "--workers", "2"], "nowhere"),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1"),
        (["--token", " "], "the token is empty"),
        (["--backend", "fpga"], "unknown backend 'fpga'"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(arguments, said):
    command = [sys.executable, "-m", "facekit_cli.main", "serve", "--port", "0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("facekit: ")
    assert said in line


def test_answers_are_sent_without_waiting_for_the_client(running):
    def seconds_of_a_request(client: httpx.Client) -> float:
        start = time.perf_counter()
        assert client.get("/healthz").status_code == 200
        return time.perf_counter() - start

    with httpx.Client(base_url=running.address, trust_env=False) as client:
        times = [seconds_of_a_request(client) for _ in range(50)]
    # Where small packets are held back, all but a connection's first requests take 40 ms or more; the fastest
    # of many tells so on a busy machine too.
    assert min(times[5:]) < 0.03
