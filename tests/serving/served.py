"""Services, requests and pictures that the tests of the service share."""

from __future__ import annotations

import http.client
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import numpy as np
from PIL import Image

PATIENCE = 240
"""Seconds; a shared machine may take long to load the models."""


@dataclass
class Process:
    """A service in a process of its own."""

    popen: subprocess.Popen[str]
    address: str

    def stop(self) -> int:
        """Ask it to end, and give its exit status."""
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(PATIENCE)


@contextmanager
def process(*arguments: object) -> Iterator[Process]:
    """Run `facekit serve` until the block ends."""
    command = [sys.executable, "-m", "facekit_cli.main", "serve", "--port", "0", *map(str, arguments)]
    popen = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": ""}
    )
    try:
        assert popen.stdout is not None
        said = popen.stdout.readline()
        found = re.search(r"http://\S+:\d+$", said.strip())
        assert found, f"no address in {said!r}"
        yield Process(popen, found[0])
    finally:
        popen.kill()
        popen.wait()
        popen.stdout.close()


@dataclass
class Served:
    """A service in a thread, with its application at hand."""

    address: str
    port: int
    service: object

    def client(self, **options: object) -> httpx.Client:
        return httpx.Client(base_url=self.address, timeout=PATIENCE, trust_env=False, **options)


def encoded(image: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind)
    return stream.getvalue()


def until(true: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def half_a_request(port: int, length: int, sent: bytes) -> http.client.HTTPConnection:
    """Begin an upload of so many bytes and send only some."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.putrequest("POST", "/v1/analyze")
    connection.putheader("Content-Type", "image/png")
    connection.putheader("Content-Length", str(length))
    connection.endheaders(sent)
    return connection
