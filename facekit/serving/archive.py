"""Zip files from strangers: every entry is checked before it is unpacked."""

from __future__ import annotations

import io
import re
import stat
import zipfile
from pathlib import Path, PurePosixPath

from facekit.errors import DatasetError, ImageError
from facekit.images import SUFFIXES, encoded_size
from facekit.serving.settings import Limits

MOST_NAME, MOST_DEPTH = 200, 8
"""Bytes of a path's part, and parts of a path."""

_CENTRAL_HEADER = b"PK\x01\x02"
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]')
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class ArchiveSizeError(DatasetError):
    """A zip file has too many entries, or they are too large."""


def unpack(data: bytes, folder: Path, limits: Limits) -> int:
    """Unpack the pictures of a zip file and give their number; other entries are left out.

    Parameters
    ----------
    data : bytes
    folder : Path
        An empty one.
    limits : Limits

    Raises
    ------
    ArchiveSizeError
        Entries, or bytes of them unpacked, pass the limits.
    DatasetError
        It is no zip file, is broken, or an entry is not what a set of pictures holds: a link, an encrypted or
        strangely compressed file, a name that leads elsewhere.
    """
    if data.count(_CENTRAL_HEADER) > limits.archive_entries:  # before each becomes an object
        raise ArchiveSizeError(f"the zip file has more than {limits.archive_entries:,} entries; send fewer")
    with _opened(data) as archive:
        chosen: dict[PurePosixPath, zipfile.ZipInfo] = {}
        for entry in archive.infolist():
            path = _checked(entry, limits)
            if path is not None and chosen.setdefault(path, entry) is not entry:
                raise DatasetError(f"the zip file names {entry.filename!r} twice; pack it anew")
        if any(parent in chosen for path in chosen for parent in path.parents):
            raise DatasetError("the zip file has a folder and a picture of one name; pack it anew")
        total = sum(entry.file_size for entry in chosen.values())
        if total > limits.archive_bytes:
            raise ArchiveSizeError(
                f"the zip file unpacks to {total:,} bytes; the limit is {limits.archive_bytes:,}"
            )
        pixels = 0
        for path, entry in chosen.items():
            picture = _read(archive, entry)
            pixels += _pixels(picture)
            if pixels > limits.archive_pixels:
                raise ArchiveSizeError(
                    f"the pictures have more than {limits.archive_pixels:,} pixels together; send fewer"
                )
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(picture)
    if not chosen:
        raise DatasetError("no pictures in the zip file; expected folders named by expression: happy/1.jpg")
    return len(chosen)


def _opened(data: bytes) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except Exception as error:  # zipfile raises whatever broken data lead it to
        raise _broken(error) from error


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Unpack an entry, never to more than the size that was checked."""
    try:
        return archive.read(entry)
    except Exception as error:  # as above
        raise _broken(error) from error


def _broken(error: Exception) -> DatasetError:
    return DatasetError(f"not a sound zip file: {error}; pack it anew")


def _pixels(picture: bytes) -> int:
    try:
        width, height = encoded_size(picture)
    except ImageError:
        return 0  # the cross-check will list it among those that cannot be read
    return width * height


def _checked(entry: zipfile.ZipInfo, limits: Limits) -> PurePosixPath | None:
    """Give where an entry belongs, None where it is no picture; raise where no honest set would hold it."""
    name = entry.filename
    parts = name.rstrip("/").split("/")
    if (
        _FORBIDDEN.search(name)
        or len(parts) > MOST_DEPTH
        or any(part in ("", ".", "..") or len(part.encode()) > MOST_NAME for part in parts)
    ):
        raise DatasetError(f"the zip file holds the name {name[:80]!r}, which is refused")
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DatasetError(f"{name}: a link or device in the zip file; expected pictures")
    if entry.is_dir() or not name.lower().endswith(SUFFIXES) or any(part[0] == "." for part in parts):
        return None
    if parts[0] == "__MACOSX":
        return None
    if entry.flag_bits & 1 or entry.compress_type not in _METHODS:
        raise DatasetError(f"{name}: encrypted or compressed in a rare way; expected a plain zip file")
    if entry.file_size > max(entry.compress_size, 1) * limits.archive_ratio:
        raise ArchiveSizeError(
            f"{name}: unpacks to more than {limits.archive_ratio} times its size, as no picture does"
        )
    return PurePosixPath(name)
