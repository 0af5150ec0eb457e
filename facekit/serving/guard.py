"""What stands before every answer: who may ask, how many at a time, headers, the log, no stack traces."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from facekit.serving.metrics import Metrics
from facekit.serving.settings import ServiceConfig

CLIENT_LEFT = 499
"""The status in log and metrics where the client left before the answer."""

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

SECURITY_HEADERS: Mapping[str, str] = {
    "content-security-policy": PAGE_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Sent with every answer that does not set them itself."""

OPEN_PATHS = frozenset({"/v1/about"})
"""Below the paths that need the token, those that do not."""

_log = logging.getLogger(__name__)


class Guard:
    """The outermost layer around the application.

    Parameters
    ----------
    app : ASGI application
    config : ServiceConfig
    metrics : Metrics
    """

    def __init__(self, app: ASGIApp, config: ServiceConfig, metrics: Metrics) -> None:
        self._app, self._config, self._metrics = app, config, metrics
        self._token = None if config.token is None else f"bearer {config.token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._admit(scope, receive, send_with_headers)
        except ClientDisconnect:
            status = CLIENT_LEFT
        except Exception as error:
            refusal = _refusal_of(error)
            if refusal.status_code == 500:
                _log.exception("a request failed")
            if not status:
                await error_answer(refusal)(scope, receive, send_with_headers)
        finally:
            self._note(scope, status or CLIENT_LEFT, time.perf_counter() - started)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on where it may pass.

        Raises
        ------
        HTTPException
            400, 403, 401: it may not; 429: too many are under way.
        TimeoutError
            It took too long.
        """
        headers = Headers(scope=scope)
        if self._config.local and not _is_local(headers.get("host", "")):
            raise HTTPException(
                400, "this service answers only to localhost; start it with --host to open it to others"
            )
        if _is_foreign(scope["method"], headers):
            raise HTTPException(403, "the request comes from another site's page, which is refused")
        if scope["path"].startswith("/v1/") and scope["path"] not in OPEN_PATHS:
            self._check_token(headers)
            await self._count_in(scope, receive, send)
            return
        if scope["path"] == "/metrics":
            self._check_token(headers)
        await self._app(scope, receive, send)

    def _check_token(self, headers: Headers) -> None:
        scheme, space, token = headers.get("authorization", "").partition(" ")
        shown = f"{scheme.lower()}{space}{token}".encode("latin-1")
        if self._token is not None and not hmac.compare_digest(shown, self._token):
            raise HTTPException(
                401,
                "this service needs its token; send the header Authorization: Bearer TOKEN",
                {"www-authenticate": "Bearer"},
            )

    async def _count_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        limits = self._config.limits
        if self._metrics.active >= limits.requests:
            raise HTTPException(429, "too many requests at a time; try again soon", {"retry-after": "1"})
        self._metrics.active += 1
        try:
            longest = limits.archive_seconds if scope["path"] == "/v1/crosscheck" else limits.seconds
            async with asyncio.timeout(longest):
                await self._app(scope, receive, send)
        finally:
            self._metrics.active -= 1

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        """Log and count a request by its own path, without its query, file names or contents."""
        route = scope.get("route")
        self._metrics.request(route.path if route else "other", status, seconds)
        client = scope["client"][0] if scope["client"] else "-"
        path = scope["raw_path"][:200].decode("ascii", "backslashreplace")
        _log.info('%s "%s %s" %d %.0f ms', client, scope["method"], path, status, seconds * 1e3)


def error_answer(error: HTTPException) -> JSONResponse:
    """Give the answer that tells of an error: an object with one line."""
    return JSONResponse({"error": " ".join(error.detail.split())}, error.status_code, error.headers)


def _refusal_of(error: Exception) -> HTTPException:
    if isinstance(error, HTTPException):
        return error
    if isinstance(error, TimeoutError):
        return HTTPException(503, "the answer took too long; try again", {"retry-after": "5"})
    return HTTPException(500, "the service failed; its log says why")


def _is_local(host: str) -> bool:
    """Tell whether a Host header names this machine itself."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or name.endswith(".localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _is_foreign(method: str, headers: Headers) -> bool:
    """Tell whether a browser sent the request for another site's page; a followed link is no such request."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        follows_link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        return site not in ("same-origin", "none") and not follows_link
    origin = headers.get("origin")
    try:
        return origin is not None and urlsplit(origin).netloc != headers.get("host")
    except ValueError:
        return True
