"""From a request to its pictures: within bounds, checked by their headers, in memory and never on disk."""

from __future__ import annotations

import asyncio
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException

from facekit.errors import ImageError
from facekit.fetching import fetch
from facekit.images import encoded_size
from facekit.serving.batching import Upload
from facekit.serving.settings import Limits, ServiceConfig

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_log = logging.getLogger(__name__)

_FETCHERS = ThreadPoolExecutor(8, "facekit-fetch")
"""Threads of their own, so that slow sites hold up no uploads."""

MOST_FIELDS = 100
"""Parts of a multipart body that are no files, and of no use here."""


@dataclass(frozen=True)
class Refused:
    """A picture that goes no further, under its sender's name, and why."""

    name: str | None
    status: int
    text: str


async def read_pictures(request: Request, config: ServiceConfig) -> list[tuple[str | None, bytes]]:
    """Give name and contents of the pictures in a request; a raw one has no name.

    Raises
    ------
    HTTPException
        The request or a URL in it is refused; see read_body and file_parts.
    starlette.requests.ClientDisconnect
    """
    limits = config.limits
    body = await read_body(request, limits)
    if is_multipart(request):
        content_type = request.headers["content-type"]
        return [*await asyncio.to_thread(file_parts, content_type, body, limits.pictures)]
    if _media_type(request) != "application/json":
        return [(None, body)]
    if not config.allow_urls:
        raise HTTPException(403, "this service fetches no URLs; send the picture itself")
    urls = _urls_in(body, limits.pictures)
    return list(zip(urls, await asyncio.gather(*(_fetched(url) for url in urls)), strict=True))


async def read_archive(request: Request, limits: Limits) -> bytes:
    """Give the zip file in a request: its body, or the only file in it; see read_pictures."""
    body = await read_body(request, limits)
    if is_multipart(request):
        content_type = request.headers["content-type"]
        ((_, body),) = await asyncio.to_thread(file_parts, content_type, body, 1)
    return body


def check(name: str | None, data: bytes, limits: Limits) -> Upload | Refused:
    """Look at a picture's header, before anything is decoded."""
    try:
        width, height = encoded_size(data)
    except ImageError as error:
        return Refused(name, 400, str(error))
    if width * height > limits.pixels:
        text = f"{width}x{height} is {width * height:,} pixels, the limit is {limits.pixels:,}"
        return Refused(name, 422, f"{text}; shrink the picture")
    return Upload(name, data, width * height)


def is_multipart(request: Request) -> bool:
    """Tell whether a request's body has parts."""
    return _media_type(request).startswith("multipart/")


async def read_body(request: Request, limits: Limits) -> bytes:
    """Read a request's body.

    Raises
    ------
    HTTPException
        413 as soon as it is known to be too large, 408 where it comes too slowly, 400 where it is empty.
    starlette.requests.ClientDisconnect
        The client left before the end.
    """
    too_large = HTTPException(413, f"the request is larger than {limits.body:,} bytes; send less at a time")
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > limits.body:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.upload_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.body:
                    raise too_large
    except TimeoutError:
        raise HTTPException(
            408, f"the request did not arrive within {limits.upload_seconds:g} s; try a better connection"
        ) from None
    if not body:
        raise HTTPException(
            400, "the request is empty; expected a picture as its body, or as multipart/form-data"
        )
    return bytes(body)


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def file_parts(content_type: str, body: bytes, most: int) -> list[tuple[str, bytes]]:
    """Give name and contents of every file in a multipart body; other fields are left out.

    Raises
    ------
    HTTPException
        400 where it is broken or holds no file, 413 where it holds more than `most`.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise HTTPException(400, "multipart without a boundary; expected multipart/form-data; boundary=...")
    parts = _Parts(most)
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise HTTPException(400, f"broken multipart body: {error}") from error
    if not parts.complete:
        raise HTTPException(400, "broken multipart body: it ends before its last boundary")
    if not parts.files:
        raise HTTPException(400, "no file in the multipart body; expected pictures as parts with a file name")
    return parts.files


def _urls_in(body: bytes, most: int) -> list[str]:
    """Give the URLs of a JSON body {"urls": [...]}."""
    try:
        urls = json.loads(body)["urls"]
    except (ValueError, TypeError, KeyError, RecursionError):
        urls = None
    if not isinstance(urls, list) or not urls or not all(_is_plain(url) for url in urls):
        raise HTTPException(400, 'expected {"urls": ["https://...", ...]}, or the picture itself as the body')
    if len(urls) > most:
        raise HTTPException(413, f"{len(urls)} URLs in one request; the limit is {most}, send fewer")
    return urls


def _is_plain(url: object) -> bool:
    return isinstance(url, str) and url.isprintable()


async def _fetched(url: str) -> bytes:
    try:
        if not url.startswith(("http://", "https://")):
            raise ImageError(f"{url}: expected http or https")
        return await asyncio.get_running_loop().run_in_executor(_FETCHERS, fetch, url)
    except ImageError as error:
        # What went wrong in detail would tell a stranger about the network in which this runs.
        _log.warning("%s", error)
        raise HTTPException(
            400, f"{url}: cannot be fetched; expected a picture at a public address"
        ) from None


class _Parts:
    """Gathers the files that the parser meets."""

    def __init__(self, most: int) -> None:
        self.files: list[tuple[str, bytes]] = []
        self.complete = False
        self._most, self._fields = most, 0
        self._begin()

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_part_data": lambda data, start, end: self._data.extend(data[start:end]),
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._name: str | None = None
        self._field, self._value, self._data = bytearray(), bytearray(), bytearray()

    def _end_header(self) -> None:
        if bytes(self._field).lower() == b"content-disposition":
            name = parse_options_header(bytes(self._value))[1].get(b"filename")
            self._name = None if name is None else name.decode("utf-8", "replace")
        self._field, self._value = bytearray(), bytearray()

    def _end_part(self) -> None:
        if self._name is None:
            self._fields += 1
        else:
            self.files.append((self._name, bytes(self._data)))
        if len(self.files) > self._most or self._fields > MOST_FIELDS:
            raise HTTPException(413, f"more than {self._most} files in one request; send fewer")

    def _end(self) -> None:
        self.complete = True
