from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import made
import pytest
import uvicorn
from served import PATIENCE, Process, Served, encoded, process

from facekit.serving.app import create_app
from facekit.serving.settings import Limits, ServiceConfig

USUAL = Limits()


@pytest.fixture(scope="session")
def running() -> Iterator[Process]:
    """The service as users start it, with the shipped weights."""
    with process() as started:
        yield started


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory) -> str:
    return made.weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def serve(small_weights) -> Iterator[Callable[..., Served]]:
    """Start services of a network that never learnt, for which the whole picture is the face."""
    stops = []

    def start(*, ready: bool = True, limits: Limits = USUAL, **settings: object) -> Served:
        told = threading.Event()
        config = ServiceConfig(detector="none", weights=small_weights, limits=limits, **settings)
        app = create_app(config, lambda _fault: told.set())
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(app, lifespan="on", log_config=None, access_log=False, ws="none")
        )
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()

        def stop() -> None:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()

        stops.append(stop)
        if ready:
            assert told.wait(PATIENCE)
        port = listener.getsockname()[1]
        return Served(f"http://127.0.0.1:{port}", port, app.state.service)

    yield start
    for stop in stops:
        stop()


@pytest.fixture(scope="session")
def png() -> bytes:
    """A picture of 64x64."""
    return encoded(made.picture(0))


@pytest.fixture(scope="session")
def portrait() -> bytes:
    """NASA's portrait of Eileen Collins, JPEG, 512x512, one face."""
    return (Path(__file__).parents[2] / "docs" / "images" / "astronaut.jpg").read_bytes()
