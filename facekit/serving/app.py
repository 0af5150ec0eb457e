"""The application: the addresses of the service and of its pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from facekit import __version__
from facekit.serving import schemas
from facekit.serving.guard import Guard, error_answer
from facekit.serving.service import Report, Service, sample_picture
from facekit.serving.settings import ServiceConfig

ASSETS = {
    "style.css": "text/css",
    "page.js": "text/javascript",
    "faces.js": "text/javascript",
    "docs.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
"""Files of the pages and their types."""

REFUSALS = {
    400: "It cannot be read.",
    401: "The token is missing or wrong.",
    403: "The service fetches no URLs, or another site's page asks.",
    408: "The request came too slowly.",
    413: "The request is too large, or holds too many pictures.",
    422: "The picture has too many pixels.",
    429: "Too many requests at a time; see Retry-After.",
    503: "Not ready, or the answer took too long; see Retry-After.",
}


def create_app(config: ServiceConfig, report: Report) -> FastAPI:
    """Make the application; it loads its models when it is started.

    Parameters
    ----------
    config : ServiceConfig
    report : callable
        Is told None when the models are loaded, or why they cannot be.
    """
    service = Service(config, report)
    app = FastAPI(
        title="facekit",
        version=__version__,
        description="Faces, 15 keypoints and calibrated expressions in pictures.",
        docs_url=None,
        redoc_url=None,
        lifespan=service.lifespan,
    )
    app.add_middleware(Guard, config=config, metrics=service.metrics)
    app.add_exception_handler(HTTPException, _answer_error)
    app.state.service = service
    _add_service(app, service)
    for path, file in (("/", "index.html"), ("/docs", "docs.html")):
        app.add_api_route(path, partial(_file, file, "text/html"), methods=["GET"], include_in_schema=False)
    for name, kind in ASSETS.items():
        app.add_api_route(
            f"/assets/{name}", partial(_file, name, kind), methods=["GET"], include_in_schema=False
        )
    app.add_api_route("/assets/sample.png", _sample, methods=["GET"], include_in_schema=False)
    return app


def _add_service(app: FastAPI, service: Service) -> None:
    refusals: dict[int | str, dict[str, Any]] = {
        status: {"model": schemas.ErrorAnswer, "description": text} for status, text in REFUSALS.items()
    }
    app.add_api_route(
        "/v1/analyze",
        service.analyze,
        methods=["POST"],
        summary="Find faces in one or several pictures",
        response_model=list[schemas.PictureAnswer],
        responses=refusals,
        openapi_extra=schemas.PICTURES_BODY,
    )
    app.add_api_route(
        "/v1/crosscheck",
        service.crosscheck,
        methods=["POST"],
        summary="Hold the models against a zip file of pictures in folders named by expression",
        response_model=dict[str, Any],
        responses={status: told for status, told in refusals.items() if status not in (403, 422)},
        openapi_extra=schemas.ARCHIVE_BODY,
    )
    gets: list[tuple[str, Callable[[], Awaitable[Response]], str, type | None]] = [
        ("/v1/about", service.about, "Version, weights and limits", schemas.AboutAnswer),
        ("/healthz", service.healthz, "Whether the process answers", schemas.StateAnswer),
        ("/readyz", service.readyz, "Whether the models are loaded", schemas.StateAnswer),
        ("/metrics", service.figures, "Figures of the worker that answers, for Prometheus", None),
    ]
    for path, answer, summary, model in gets:
        app.add_api_route(path, answer, methods=["GET"], summary=summary, response_model=model)


async def _file(name: str, kind: str) -> Response:
    """Give a file of the pages."""
    data = (resources.files("facekit.serving") / "page" / name).read_bytes()
    return Response(data, media_type=kind)


async def _sample() -> Response:
    """Give a picture to try the page with."""
    return Response(sample_picture(), media_type="image/png")


async def _answer_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_answer(error)
