"""`facekit serve`: the service and its page."""

from __future__ import annotations

import importlib.util
import ipaddress
from typing import Annotated

import typer

from facekit.errors import ConfigError
from facekit_cli import console
from facekit_cli.options import BackendName, DetectorModel, DetectorName, Device, WeightsName

NEEDED = ("fastapi", "uvicorn", "python_multipart")


def serve(
    host: Annotated[str, typer.Option(metavar="H", help="Name or address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="P", min=0, max=65535, help="0 picks a free one.")] = 8000,
    workers: Annotated[int, typer.Option(metavar="N", min=1, help="Processes that answer.")] = 1,
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Fetch pictures from public URLs for callers.")
    ] = False,
    token: Annotated[
        str | None,
        typer.Option(metavar="T", envvar="FACEKIT_TOKEN", help="Secret that callers must show."),
    ] = None,
    max_body: Annotated[
        float | None, typer.Option(metavar="MB", min=0.001, help="Refuse larger requests.", show_default="10")
    ] = None,
    detector: DetectorName = "auto",
    detector_model: DetectorModel = None,
    device: Device = "auto",
    backend: BackendName = "auto",
    weights: WeightsName = "default",
) -> None:
    """Answer requests over HTTP, and show a page to try it with, until it is stopped."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"{', '.join(missing)} not found: install facekit with its extra `serve`")
    if token is not None and not token.strip():
        raise ConfigError("the token is empty; leave it out, or give one")
    from facekit.serving.server import serve
    from facekit.serving.settings import Limits, ServiceConfig

    local = _is_loopback(host)
    config = ServiceConfig(
        device=device,
        backend=backend,
        detector=detector,
        detector_model=detector_model,
        weights=weights,
        workers=workers,
        token=token,
        allow_urls=allow_urls,
        local=local,
        limits=Limits() if max_body is None else Limits(body=round(max_body * 1e6)),
    )

    def announce(address: str) -> None:
        console.say(f"facekit serves on {address}")
        if not local and token is None:
            console.complain("open to everyone who reaches this address; --token keeps strangers out")

    serve(config, host, port, announce)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
