"""`facekit webcam`: a window with what a camera sees and what facekit finds in it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from facekit.errors import ConfigError
from facekit_cli.options import BackendName, DetectorModel, DetectorName, Device, MinFace, WeightsName
from facekit_cli.video import Every, Raw, interruption, quieten_decoders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from facekit.video import FrameFaces

TITLE = "facekit (q or Esc closes)"
CLOSING_KEYS = (ord("q"), 27)

PROBE = "import cv2; cv2.namedWindow('facekit'); cv2.destroyAllWindows()"


def webcam(
    camera: Annotated[int, typer.Option(min=0, metavar="N", help="The camera's number.")] = 0,
    raw: Raw = False,
    every: Every = 1,
    detector: DetectorName = "auto",
    detector_model: DetectorModel = None,
    device: Device = "auto",
    backend: BackendName = "auto",
    weights: WeightsName = "default",
    min_face: MinFace = None,
) -> None:
    """Show what a camera sees, with the faces found, in a window; nothing is kept."""
    quieten_decoders()
    if not window_opens():
        raise ConfigError(
            "there is no display for a window; `facekit serve` shows the camera of a browser, and "
            f"`facekit video {camera} --out FILE.mp4` writes a file"
        )
    from facekit.analyzer import FaceAnalyzer
    from facekit.decoding import Video
    from facekit.video import analyze_video

    source = Video(camera)
    analyzer = FaceAnalyzer(
        device,
        detector,
        weights=weights,
        detector_model=detector_model,
        min_face=min_face,
        backend=backend,
    )
    frames = analyze_video(source, every=every, raw=raw, analyzer=analyzer)
    try:
        with interruption() as stopped:
            show(frames, stopped)
    finally:
        frames.close()


def window_opens() -> bool:
    """Tell whether OpenCV can open a window; tried in another process, since Qt aborts where it cannot."""
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, timeout=60, check=False)
    return done.returncode == 0


def show(frames: Iterable[FrameFaces], stopped: Callable[[], bool]) -> None:
    """Show frames until a key or the window's own button closes it, or Ctrl-C.

    Raises
    ------
    ImageError
        The camera gives no more pictures.
    """
    import cv2

    from facekit.errors import ImageError

    cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL)
    try:
        for faces in frames:
            if faces.error is not None:
                raise ImageError(faces.error)
            cv2.imshow(TITLE, cv2.cvtColor(faces.draw(), cv2.COLOR_RGB2BGR))
            key = cv2.waitKey(1) & 0xFF
            closed = cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1
            if key in CLOSING_KEYS or closed or stopped():
                return
    finally:
        cv2.destroyAllWindows()
