"""Pictures in: whatever a user has becomes (H, W, 3) uint8 RGB, upright and of a bounded size."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from facekit.errors import ConfigError, ImageError

MAX_PIXELS = 50_000_000
"""Larger pictures are refused before they are decoded, unless a higher limit is given."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""What is decoded; Pillow knows more, some of which run other programs."""

SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jfif",
    ".png",
    ".webp",
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".avif",
)
"""Ends of the names of pictures, in lower case."""

MOST_SCANS = 100
"""Of a JPEG: each goes over all pixels, and honest files have about ten. libtiff has the same limit."""

_SCAN, _END = b"\xff\xda", b"\xff\xd9"
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
"""Begins a segment of a JPEG or ends it; decoders pass over other bytes between two segments."""

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def read_image(
    source: Any,
    *,
    color: Literal["rgb", "bgr"] = "rgb",
    max_pixels: int = MAX_PIXELS,
    allow_private: bool = False,
) -> NDArray[np.uint8]:
    """Read a picture.

    Files are turned as their EXIF says, animations give their first frame, 16-bit gray is scaled to 8 bits.
    What is transparent lies on white: the colours under it are whatever a program left there, and white is
    the page on which people see such pictures.

    Parameters
    ----------
    source : path, URL, bytes, PIL image, ndarray or tensor
        An ndarray is (H, W) or (H, W, 1|3|4), a tensor (3, H, W); both uint8 or float 0..1.
    color : "rgb" or "bgr"
        Order of an ndarray's or tensor's channels.
    max_pixels : int
        Larger pictures are refused.
    allow_private : bool
        Let a URL reach private, loopback and link-local addresses.

    Returns
    -------
    (H, W, 3) uint8, RGB, contiguous; the source itself where that is one already

    Raises
    ------
    ImageError
        The picture cannot be read, is too large, or has a wrong type, shape or range.
    """
    if color not in ("rgb", "bgr"):
        raise ConfigError(f"unknown color {color!r}: expected 'rgb' or 'bgr'")
    if _is_tensor(source):
        return _from_array(_array_of(source), color, max_pixels)
    if isinstance(source, np.ndarray):
        return _from_array(source, color, max_pixels)
    if isinstance(source, Image.Image):
        return _from_pil(source, getattr(source, "filename", "") or "PIL image", max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_stream(io.BytesIO(source), "bytes", max_pixels)
    if isinstance(source, str) and _URL.match(source):
        from facekit.fetching import fetch

        return _from_stream(io.BytesIO(fetch(source, allow_private=allow_private)), source, max_pixels)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        with _file(path) as stream:
            return _from_stream(stream, str(path), max_pixels)
    raise ImageError(
        f"a picture of type {type(source).__name__}; expected a path, URL, bytes, PIL image, ndarray, tensor"
    )


def encoded_size(source: bytes | str | os.PathLike[str]) -> tuple[int, int]:
    """Give the width and height, pixels, of a file or its contents as the header says; nothing is decoded.

    Raises
    ------
    ImageError
        It is no picture, or would take absurdly long to decode.
    """
    if isinstance(source, bytes):
        return _opened(io.BytesIO(source), "bytes").size
    path = Path(source)
    with _file(path) as stream:
        return _opened(stream, str(path)).size


def as_inputs(x: Any) -> tuple[Iterable[Any], bool]:
    """Give the pictures in `x`, and whether it is a single one.

    A list, tuple, generator or batch (B, ...) of four dimensions holds many; anything else is one.

    Raises
    ------
    ImageError
        A batch has a wrong type or shape.
    """
    if getattr(x, "ndim", None) == 4:
        for one in x[:1]:
            _check_kind(_array_of(one) if _is_tensor(one) else one)
        return x, False
    if isinstance(x, (list, tuple)):
        return x, False
    if isinstance(x, Iterator) and not hasattr(x, "read"):  # an open file iterates over lines
        return x, False
    return [x], True


def names_below(folder: str | os.PathLike[str], suffixes: Iterable[str] = SUFFIXES) -> Iterator[str]:
    """Give the files of a folder and its subfolders whose names end so, as relative paths in their order.

    Hidden files and folders are left out. Links to folders are followed, but not to a folder that holds them.
    A subfolder that cannot be listed is given itself: who reads it as a picture is told why.
    """
    yield from _names_below(Path(folder), tuple(suffixes), ())


def find_pictures(folder: str | os.PathLike[str]) -> list[Path]:
    """Give the files of a folder and its subfolders that are named like pictures; see names_below."""
    return [Path(folder, name) for name in names_below(folder)]


def to_gray(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give the luma (H, W) uint8 of a picture (H, W, 3) uint8 RGB; a gray picture (H, W) stays as it is."""
    import cv2

    return image if image.ndim == 2 else _converted(image, cv2.COLOR_RGB2GRAY)


def _names_below(folder: Path, suffixes: tuple[str, ...], above: tuple[Path, ...]) -> Iterator[str]:
    place = folder.resolve()
    if place in above:
        return
    with os.scandir(folder) as found:
        entries = sorted((entry.name, _is_folder(entry)) for entry in found if not entry.name.startswith("."))
    for name, is_folder in entries:
        if is_folder:
            try:
                for below in _names_below(folder / name, suffixes, (*above, place)):
                    yield f"{name}/{below}"
            except OSError:
                yield name
        elif name.lower().endswith(suffixes):
            yield name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _check_size(where: str, width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{where}: {width}x{height} pixels; expected at least one")
    if width * height > max_pixels:
        raise ImageError(
            f"{where}: {width}x{height} is {width * height:,} pixels, the limit is {max_pixels:,}; "
            "shrink it or raise max_pixels (--max-pixels)"
        )


def _file(path: Path) -> BinaryIO:
    """Open a file, or take in what cannot be read twice, such as a pipe."""
    try:
        stream = path.open("rb")
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file; check the path") from error
    except IsADirectoryError as error:
        raise ImageError(f"{path}: a folder; expected a picture, or name the pictures in it") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be read: {error}") from error
    if stream.seekable():
        return stream
    with stream:
        return io.BytesIO(stream.read())


def _from_stream(stream: BinaryIO, where: str, max_pixels: int) -> NDArray[np.uint8]:
    """Decode a file's contents; its size is known from the header before that."""
    import cv2

    image = _opened(stream, where)
    _check_size(where, *image.size, max_pixels)
    if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
        # OpenCV gives the same pixels in half the time; what it refuses, Pillow reads or explains.
        stream.seek(0)
        decoded = cv2.imdecode(np.frombuffer(stream.read(), np.uint8), cv2.IMREAD_COLOR_RGB)
        if decoded is not None:
            return np.asarray(decoded, np.uint8)
    return _from_pil(image, where, max_pixels)


def _opened(stream: BinaryIO, where: str) -> Image.Image:
    try:
        image = _open(stream)
    except Exception as error:  # a plugin raises whatever a broken header leads it to
        raise _damaged(where, error) from error
    if image is None:
        stream.seek(0)
        start = stream.read(16)
        found = f"it starts with {start!r}" if start else "it is empty"
        raise ImageError(f"{where}: not a picture, {found}; expected {', '.join(FORMATS)}")
    if image.format in ("JPEG", "MPO"):
        stream.seek(0)
        _check_scans(where, stream.read())
    return image


def _check_scans(where: str, jpeg: bytes) -> None:
    # Most files have few such bytes at all; in others they may stand in thumbnails, or after the end.
    if jpeg.count(_SCAN) > MOST_SCANS and _count_scans(jpeg) > MOST_SCANS:
        raise ImageError(f"{where}: a JPEG of more than {MOST_SCANS} scans; save it anew elsewhere")


def _count_scans(jpeg: bytes) -> int:
    """Count the scans that a decoder goes through."""
    scans = place = 0
    while (marker := _MARKER.search(jpeg, place)) and marker[0] != _END:
        scans += marker[0] == _SCAN
        place = marker.end() + max(2, int.from_bytes(jpeg[marker.end() : marker.end() + 2]))
    return scans


def _open(stream: BinaryIO) -> Image.Image | None:
    """Open a picture as Image.open does, but without Pillow's limit, which is one for the whole process."""
    prefix = stream.read(16)
    for load_plugins in (Image.preinit, Image.init):
        load_plugins()
        for name in FORMATS:
            factory, accept = Image.OPEN.get(name, (None, None))
            if factory is not None and accept is not None and accept(prefix) is True:
                stream.seek(0)
                return factory(stream, "")
    return None


def _from_pil(image: Image.Image, where: str, max_pixels: int) -> NDArray[np.uint8]:
    _check_size(where, *image.size, max_pixels)
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode == "F":
            return _from_array(np.asarray(image), "rgb", max_pixels)
        if image.mode.startswith("I"):
            return _from_array(_from_16_bits(np.asarray(image)), "rgb", max_pixels)
        return np.array(_opaque(image) if image.has_transparency_data else image.convert("RGB"))
    except ImageError as error:
        raise ImageError(f"{where}: {error}") from error
    except Exception as error:  # a decoder raises whatever broken data lead it to
        raise _damaged(where, error) from error


def _damaged(where: str, error: Exception) -> ImageError:
    return ImageError(f"{where}: the picture is damaged or cut off: {error}; get the file anew")


def _opaque(image: Image.Image) -> Image.Image:
    """Lay a picture on white."""
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _from_16_bits(gray: NDArray[Any]) -> NDArray[np.uint8]:
    if gray.min() < 0 or gray.max() > 65535:
        raise ImageError(f"gray values {gray.min()}..{gray.max()}; expected 0..65535")
    return ((gray.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _is_tensor(x: Any) -> bool:
    torch = sys.modules.get("torch")  # a tensor cannot exist before torch was imported
    return torch is not None and isinstance(x, torch.Tensor)


def _array_of(tensor: Any) -> NDArray[Any]:
    """Bring a tensor (3, H, W) to an array (H, W, 3)."""
    if tensor.ndim != 3 or tensor.shape[0] != 3:
        raise ImageError(
            f"a tensor of shape {tuple(tensor.shape)}; expected (3, H, W) or a batch (B, 3, H, W)"
        )
    tensor = tensor.detach()
    tensor = tensor.float() if tensor.is_floating_point() else tensor  # NumPy has no bfloat16
    return np.asarray(tensor.permute(1, 2, 0).cpu().numpy())


def _check_kind(array: NDArray[Any]) -> None:
    """Raise ImageError unless an array has the shape and type of a picture."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(
            f"an array of shape {array.shape}; expected (H, W), (H, W, 1|3|4) or a batch (B, H, W, 3)"
        )
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise ImageError(
            f"array of shape {array.shape} and dtype {array.dtype}; expected uint8, or floats 0..1"
        )


def _from_array(array: NDArray[Any], color: str, max_pixels: int) -> NDArray[np.uint8]:
    import cv2

    _check_kind(array)
    where = f"array of shape {array.shape}"
    _check_size(where, array.shape[1], array.shape[0], max_pixels)
    if np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):  # NaN fails here too
            raise ImageError(f"{where} of floats {low:g}..{high:g}; expected 0..1, without NaN")
        floats = np.ascontiguousarray(array, np.float32)
        array = np.asarray(cv2.convertScaleAbs(floats, alpha=255)).reshape(array.shape)
    if array.ndim == 2 or array.shape[2] == 1:
        return _converted(array, cv2.COLOR_GRAY2RGB)
    if array.shape[2] == 4:
        rgba = _converted(array, cv2.COLOR_BGRA2RGBA) if color == "bgr" else np.ascontiguousarray(array)
        return np.array(_opaque(Image.fromarray(rgba)))
    # Writable, because torch.from_numpy warns of arrays that are not.
    return _converted(array, cv2.COLOR_BGR2RGB) if color == "bgr" else np.require(array, np.uint8, ["C", "W"])


def _converted(array: NDArray[np.uint8], code: int) -> NDArray[np.uint8]:
    import cv2

    return np.asarray(cv2.cvtColor(np.ascontiguousarray(array), code), np.uint8)
