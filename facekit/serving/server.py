"""The service as processes: one socket, one or several workers, an address once they are ready."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from facekit.errors import ConfigError
from facekit.serving.app import create_app
from facekit.serving.settings import ServiceConfig

DRAIN_SECONDS = 40
"""For requests in flight after SIGTERM: a little longer than the longest analysis may take."""

LISTEN_QUEUE = 512
"""Connections that wait to be taken."""

_log = logging.getLogger(__name__)


def serve(config: ServiceConfig, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; then requests in flight are finished.

    Parameters
    ----------
    config : ServiceConfig
    host : str
        Name or address to listen on.
    port : int
        0 picks a free one.
    on_ready : callable
        Is told the service's address when all workers have loaded their models.

    Raises
    ------
    ConfigError
        It cannot listen there, or the models cannot be loaded.
    """
    _configure_logging()
    listener = _bind(host, port)
    reader, writer = get_context("spawn").Pipe(duplex=False)
    settings = uvicorn.Config(
        partial(_worker, config, writer),
        factory=True,
        workers=config.workers,
        lifespan="on",
        ws="none",
        log_config=None,
        backlog=LISTEN_QUEUE,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        timeout_worker_healthcheck=30,  # a worker that is loading its models on a busy machine is no dead one
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn raises them again after a good end, which is none
    if config.workers > 1:
        supervisor = Multiprocess(settings, [listener])
        run, stop = supervisor.run, supervisor.should_exit.set
    else:
        server = uvicorn.Server(settings)
        run, stop = partial(server.run, [listener]), partial(setattr, server, "should_exit", True)
    start = _Start(reader, config.workers, listener, on_ready, stop)
    with writer:
        run()
    start.join(5)
    if start.fault is not None:
        raise ConfigError(start.fault)


class _Start(threading.Thread):
    """Waits for what the workers say of their models: all ready, or a fault, which stops the service."""

    def __init__(
        self,
        reader: Connection,
        workers: int,
        listener: socket.socket,
        on_ready: Callable[[str], None],
        stop: Callable[[], object],
    ) -> None:
        super().__init__(daemon=True)
        self.fault: str | None = None
        self._reader, self._workers, self._listener = reader, workers, listener
        self._on_ready, self._stop = on_ready, stop
        self._address = _address(listener)
        self.start()

    def run(self) -> None:
        ready = 0
        while True:
            try:
                fault = self._reader.recv()
            except EOFError:
                return
            if fault is not None:
                self.fault = fault
                self._stop()
            else:
                ready += 1
                _log.info("a worker is ready")
            if ready == self._workers and self._listener.fileno() >= 0:  # else it is ending already
                self._listener.listen(LISTEN_QUEUE)  # uvicorn may be a moment late
                self._on_ready(self._address)


def _worker(config: ServiceConfig, writer: Connection) -> FastAPI:
    """Make a worker's application, in its own process where there are several."""
    _configure_logging()
    return create_app(config, writer.send)


def _configure_logging() -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("facekit").setLevel(logging.INFO)


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # With the protocol left open asyncio sets no TCP_NODELAY, and each answer waits 40 ms for the client.
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error}; give another --host or --port"
        ) from error
    listener.set_inheritable(True)
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
