"""The models behind the service, and the answers that need them."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response

from facekit import __version__
from facekit.backends import usual_threads
from facekit.errors import DatasetError, FacekitError
from facekit.results import Faces
from facekit.serving.archive import ArchiveSizeError
from facekit.serving.batching import Answer, Batcher, Upload
from facekit.serving.crosschecks import crosscheck_archive
from facekit.serving.metrics import CONTENT_TYPE, Metrics
from facekit.serving.settings import ServiceConfig
from facekit.serving.uploads import Refused, check, is_multipart, read_archive, read_pictures

if TYPE_CHECKING:
    from fastapi import FastAPI

    from facekit.analyzer import FaceAnalyzer

Report = Callable[[str | None], None]
"""Is told None when the models are loaded, or why they cannot be."""

REPORT_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
)
"""Of the cross-check's report, whose bars are drawn by style attributes; it runs no script at all."""

_log = logging.getLogger(__name__)


class Service:
    """The models and the answers that need them.

    Parameters
    ----------
    config : ServiceConfig
    report : callable
        See create_app.
    """

    def __init__(self, config: ServiceConfig, report: Report) -> None:
        self.config, self.metrics = config, Metrics()
        self._report = report
        self._analyzer: FaceAnalyzer | None = None
        self._batcher = Batcher(self._analyse, config.limits)
        self._crosschecking = threading.Lock()

    @asynccontextmanager
    async def lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        """Load the models, serve, and finish what is under way."""
        loading = asyncio.create_task(self._load())
        if self.config.workers > 1:
            await loading  # the other workers answer meanwhile
        yield
        self.metrics.ready = False
        await loading
        await asyncio.to_thread(self._batcher.close)

    async def _load(self) -> None:
        try:
            analyzer = await asyncio.to_thread(_make_analyzer, self.config)
            self._analyzer = analyzer
            await self._batcher.submit(
                [Upload(None, sample_picture(), 1)]
            )  # warms up the thread that answers
        except FacekitError as error:
            self._report(str(error))
        except Exception as error:
            _log.exception("the models cannot be loaded")
            self._report(f"the models cannot be loaded: {error}")
        else:
            self.metrics.ready = True
            self._report(None)

    def _analyse(self, uploads: Sequence[Upload]) -> list[Answer]:
        assert self._analyzer is not None
        self.metrics.batch(len(uploads))
        results = self._analyzer.stream([upload.data for upload in uploads])
        return [faces.named(upload.name).to_dict() for upload, faces in zip(uploads, results, strict=True)]

    async def analyze(self, request: Request) -> Response:
        """Find the faces in the pictures of a request: one raw, or several as multipart/form-data."""
        weights = self._ready().backend.name
        sources = await read_pictures(request, self.config)
        checked = await asyncio.to_thread(lambda: [check(*source, self.config.limits) for source in sources])
        answers = iter(await self._batcher.submit([found for found in checked if isinstance(found, Upload)]))
        told = [next(answers) if isinstance(found, Upload) else _failure(found, weights) for found in checked]
        for answer in told:
            if answer["error"]:
                answer["error"] = answer["error"].removeprefix("bytes: ")  # the only source there is here
            self.metrics.picture(None if answer["error"] else len(answer["faces"]))
        _raise_if_alone(checked, told, is_multipart(request))
        return JSONResponse(told)

    async def crosscheck(self, request: Request) -> Response:
        """Check the models against labelled pictures; with Accept: text/html the answer is the report."""
        analyzer = self._ready()
        body = await read_archive(request, self.config.limits)
        as_page = "text/html" in request.headers.get("accept", "")
        try:
            text = await asyncio.to_thread(self._crosscheck, body, analyzer, as_page)
        except ArchiveSizeError as error:
            raise HTTPException(413, str(error)) from error
        except DatasetError as error:
            raise HTTPException(400, str(error)) from error
        if text is None:
            raise HTTPException(
                429, "another cross-check is under way; try again later", {"retry-after": "10"}
            )
        if as_page:
            return HTMLResponse(text, headers={"content-security-policy": REPORT_POLICY})
        return Response(text, media_type="application/json")

    def _crosscheck(self, body: bytes, analyzer: FaceAnalyzer, as_page: bool) -> str | None:
        """Run a cross-check, or give None while another one runs, be it for a client that left."""
        if not self._crosschecking.acquire(blocking=False):
            return None
        try:
            return crosscheck_archive(body, analyzer, self.config.limits, as_page=as_page)
        finally:
            self._crosschecking.release()

    async def about(self) -> Response:
        """Tell version, weights and limits."""
        limits, analyzer = self.config.limits, self._analyzer
        return JSONResponse(
            {
                "version": __version__,
                "ready": self.metrics.ready,
                "weights": analyzer.backend.name if analyzer else None,
                "token": self.config.token is not None,
                "urls": self.config.allow_urls,
                "limits": {"body": limits.body, "pixels": limits.pixels, "pictures": limits.pictures},
            }
        )

    async def healthz(self) -> Response:
        """Say that the process answers."""
        return JSONResponse({"status": "ok"})

    async def readyz(self) -> Response:
        """Say that the models are loaded, or 503."""
        self._ready()
        return JSONResponse({"status": "ready"})

    async def figures(self) -> Response:
        """Give the figures of this worker."""
        return Response(self.metrics.text(), headers={"content-type": CONTENT_TYPE})

    def _ready(self) -> FaceAnalyzer:
        if not self.metrics.ready or self._analyzer is None:
            raise HTTPException(503, "the models are being loaded; try again soon", {"retry-after": "2"})
        return self._analyzer


def _failure(refused: Refused, weights: str) -> Answer:
    return Faces.failed(refused.name, weights, refused.text).to_dict()


def _raise_if_alone(checked: Sequence[Upload | Refused], told: Sequence[Answer], multipart: bool) -> None:
    """Turn a failure of a request's only picture into an error of the request.

    In a multipart body an unreadable picture is told of in its place, like those of a list; one with too many
    pixels is not.
    """
    if len(told) == 1 and told[0]["error"]:
        first = checked[0]
        status = first.status if isinstance(first, Refused) else 400
        if not multipart or status == 422:
            raise HTTPException(status, told[0]["error"])


@cache
def sample_picture() -> bytes:
    """Give NASA's portrait of Eileen Collins, PNG, which scikit-image brings."""
    found = find_spec("skimage")
    assert found is not None
    assert found.origin is not None
    return (Path(found.origin).parent / "data" / "astronaut.png").read_bytes()


def _make_analyzer(config: ServiceConfig) -> FaceAnalyzer:
    """Load the models; several workers share the cores."""
    import cv2

    from facekit.analyzer import FaceAnalyzer

    if config.workers > 1:
        threads = max(1, usual_threads() // config.workers)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # which both backends read when they start
        cv2.setNumThreads(threads)
    return FaceAnalyzer(
        config.device,
        config.detector,
        weights=config.weights,
        detector_model=config.detector_model,
        max_pixels=config.limits.pixels,
        backend=config.backend,
    )
