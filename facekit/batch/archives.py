"""Tar and zip files of pictures, as WebDataset lays them out: what is no picture is passed over."""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Iterator
from functools import lru_cache

from facekit.batch.chunks import Chunk, Source, Stamp, check_unchanged, is_picture, runs, stamp_of
from facekit.errors import ImageError

MOST_BYTES = 1 << 28
"""A packed picture that says it is larger is not unpacked: 50 million pixels as they are would be less."""

TAR_BLOCK = 512


def tar_chunks(path: str, size: int) -> Iterator[Chunk]:
    """Cut a tar file into chunks of so many pictures; only its headers are read."""
    stamp = stamp_of(path)
    faults: list[str] = []
    for first, start, count in runs(_tar_starts(path, faults), size):
        yield Chunk("tar", path, count, first, start, stamp=stamp)
    for fault in faults:
        yield _broken(path, fault)


def read_tar(chunk: Chunk) -> Iterator[tuple[str, Source]]:
    """Give name and contents of a chunk's pictures, from where the chunk begins."""
    check_unchanged(chunk)
    with open(chunk.path, "rb") as file:  # noqa: PTH123  (names that are no UTF-8)
        file.seek(chunk.start)
        left = chunk.count
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while left and (member := archive.next()) is not None:
                if member.isfile() and is_picture(member.name):
                    left -= 1
                    yield os.path.join(chunk.path, member.name), _unpacked(archive, member)  # noqa: PTH118


def zip_chunks(path: str, size: int) -> Iterator[Chunk]:
    """Cut a zip file into chunks of so many pictures."""
    stamp = stamp_of(path)
    try:
        entries = _zip_pictures(path, stamp)[1]
    except Exception as error:  # zipfile raises whatever broken data lead it to
        yield _broken(path, str(error))
        return
    for first, _, count in runs(range(len(entries)), size):
        yield Chunk("zip", path, count, first, stamp=stamp)


def read_zip(chunk: Chunk) -> Iterator[tuple[str, Source]]:
    """Give name and contents of a chunk's pictures."""
    check_unchanged(chunk)
    archive, entries = _zip_pictures(chunk.path, chunk.stamp)
    for entry in entries[chunk.first : chunk.first + chunk.count]:
        yield os.path.join(chunk.path, entry.filename), _unzipped(archive, entry)  # noqa: PTH118


def _tar_starts(path: str, faults: list[str]) -> Iterator[int]:
    """Give the byte at which each picture's headers begin; note what ends the file too early."""
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # it would keep them all
                if member.isfile() and is_picture(member.name):
                    yield member.offset
            end = archive.offset
        with open(path, "rb") as file:  # noqa: PTH123
            file.seek(end)
            if file.read(TAR_BLOCK).strip(b"\0"):  # tarfile takes a broken header for the end
                faults.append(f"not a tar header at byte {end:,}; what follows is lost")
    except (tarfile.TarError, OSError) as error:
        faults.append(str(error))


def _unpacked(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Source:
    if member.size > MOST_BYTES:
        return _too_large(member.size)
    try:
        file = archive.extractfile(member)
        return file.read() if file else b""
    except (tarfile.TarError, OSError) as error:
        return ImageError(f"cannot be unpacked: {error}")


def _unzipped(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Source:
    if entry.file_size > MOST_BYTES:
        return _too_large(entry.file_size)
    try:
        return archive.read(entry)
    except Exception as error:  # as above, and what the decompressors raise
        return ImageError(f"cannot be unpacked: {error}")


@lru_cache(maxsize=1)
def _zip_pictures(path: str, _stamp: Stamp | None) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]:
    """Open a zip file, which reads its directory; the next chunk is likely to be in the same one."""
    archive = zipfile.ZipFile(path)
    return archive, [entry for entry in archive.infolist() if is_picture(entry.filename)]


def _too_large(size: int) -> ImageError:
    return ImageError(f"unpacks to {size:,} bytes; the limit is {MOST_BYTES:,}")


def _broken(path: str, fault: str) -> Chunk:
    return Chunk("broken", path, 1, names=(f"{fault}; get the archive anew",))
