"""What the service may do, and the bounds of what it takes."""

from __future__ import annotations

from dataclasses import dataclass

from facekit.images import MAX_PIXELS


@dataclass(frozen=True)
class Limits:
    """Bounds of requests.

    Attributes
    ----------
    body : int
        Bytes of a request.
    pixels : int
        Of a picture; larger ones are refused before they are decoded.
    pictures : int
        Of a request.
    requests : int
        Under way at a time in one worker.
    upload_seconds, seconds : float
        From a request's head to the end of its body, and to its answer.
    batch : int
        Pictures that go through the network together.
    batch_pixels : int
        Of the pictures of a batch together, as they are decoded at the same time; a larger one goes alone.
    batch_seconds : float
        How long the first picture of a batch waits for others.
    archive_entries : int
        Of a zip file.
    archive_bytes : int
        Of a zip file's entries together, unpacked.
    archive_pixels : int
        Of the pictures in a zip file together.
    archive_ratio : int
        Unpacked over packed size of an entry.
    archive_seconds : float
        For a cross-check.
    """

    body: int = 10_000_000
    pixels: int = MAX_PIXELS
    pictures: int = 32
    requests: int = 64
    upload_seconds: float = 20.0
    seconds: float = 30.0
    batch: int = 16
    batch_pixels: int = 2 * MAX_PIXELS
    batch_seconds: float = 0.003
    archive_entries: int = 2_000
    archive_bytes: int = 100_000_000
    archive_pixels: int = 200_000_000
    archive_ratio: int = 100
    archive_seconds: float = 120.0


@dataclass(frozen=True)
class ServiceConfig:
    """Settings of a service.

    Attributes
    ----------
    device, detector, detector_model, weights, backend
        See analyzer.FaceAnalyzer.
    workers : int
        Processes that answer.
    token : str or None
        What callers must show as ``Authorization: Bearer TOKEN``.
    allow_urls : bool
        Fetch pictures from public URLs.
    local : bool
        Answer only requests to this machine's own names, so that no web site can reach the service by a name
        that it points here (DNS rebinding).
    limits : Limits
    """

    device: str = "auto"
    detector: str = "auto"
    detector_model: str | None = None
    weights: str = "default"
    backend: str = "auto"
    workers: int = 1
    token: str | None = None
    allow_urls: bool = False
    local: bool = True
    limits: Limits = Limits()
