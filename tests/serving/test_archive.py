from __future__ import annotations

import io
import stat
import struct
import zipfile

import made
import pytest
from served import encoded

from facekit.errors import DatasetError
from facekit.serving.archive import ArchiveSizeError, unpack
from facekit.serving.settings import Limits

LIMITS = Limits()
PICTURE = encoded(made.picture(1, 16))


def packed(entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return stream.getvalue()


def test_pictures_are_unpacked_and_everything_else_is_left(tmp_path):
    given = {
        "set/happy/1.png": PICTURE,
        "set/sad/2.PNG": PICTURE,
        "set/readme.txt": b"hello",
        "set/run.sh": b"#!/bin/sh",
        "__MACOSX/set/happy/._1.png": b"x",
        "set/.hidden/3.png": PICTURE,
    }
    assert unpack(packed(given), tmp_path, LIMITS) == 2
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert found == ["set/happy/1.png", "set/sad/2.PNG"]
    assert (tmp_path / "set/happy/1.png").read_bytes() == PICTURE


@pytest.mark.parametrize(
    "name",
    [
        "../evil.png",
        "happy/../../evil.png",
        "/etc/evil.png",
        "happy//1.png",
        "./1.png",
        "..\\evil.png",
        "C:/evil.png",
        "happy/a\nb.png",
        "happy/" + "x" * 300 + ".png",
        "/".join("abcdefghi") + "/1.png",
    ],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path, name):
    folder = tmp_path / "deep" / "folder"
    folder.mkdir(parents=True)
    with pytest.raises(DatasetError, match="name"):
        unpack(packed({"happy/1.png": PICTURE, name: PICTURE}), folder, LIMITS)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_links_are_refused(tmp_path):
    link = zipfile.ZipInfo("happy/1.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DatasetError, match="link"):
        unpack(stream.getvalue(), tmp_path, LIMITS)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    with pytest.raises(ArchiveSizeError, match="100 times"):
        unpack(packed({"happy/1.png": bytes(10_000_000)}), tmp_path, LIMITS)
    assert not any(tmp_path.iterdir())


def test_a_size_that_lies_does_not_help_a_bomb(tmp_path):
    bomb = bytearray(packed({"happy/1.png": bytes(1_000_000)}))
    for mark, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", bomb, bomb.index(mark) + place, 1000)
    with pytest.raises(DatasetError, match="not a sound zip file"):
        unpack(bytes(bomb), tmp_path, LIMITS)


@pytest.mark.parametrize(
    "limits",
    [Limits(archive_entries=2), Limits(archive_bytes=2 * len(PICTURE)), Limits(archive_pixels=2 * 16 * 16)],
)
def test_three_pictures_are_too_many_where_the_limit_holds_two(tmp_path, limits):
    names = ["happy/1.png", "happy/2.png", "sad/3.png"]
    assert unpack(packed(dict.fromkeys(names[:2], PICTURE)), tmp_path / "two", limits) == 2
    with pytest.raises(ArchiveSizeError):
        unpack(packed(dict.fromkeys(names, PICTURE)), tmp_path / "three", limits)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_rare_compression_is_refused(tmp_path, method):
    with pytest.raises(DatasetError, match="rare"):
        unpack(packed({"happy/1.png": PICTURE}, method), tmp_path, LIMITS)


def test_encrypted_entries_are_refused(tmp_path):
    data = bytearray(packed({"happy/1.png": PICTURE}))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + place] |= 1
    with pytest.raises(DatasetError, match="encrypted"):
        unpack(bytes(data), tmp_path, LIMITS)


def test_one_name_for_two_entries_is_refused(tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("happy/1.png", PICTURE)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("happy/1.png", b"another")
    with pytest.raises(DatasetError, match="twice"):
        unpack(stream.getvalue(), tmp_path, LIMITS)


def test_a_picture_that_is_a_folder_too_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="folder and a picture"):
        unpack(packed({"happy/1.png": PICTURE, "happy/1.png/2.png": PICTURE}), tmp_path, LIMITS)


@pytest.mark.parametrize("damage", [lambda data: b"no zip", lambda data: data[:-30], lambda data: data[40:]])
def test_broken_archives_are_refused(tmp_path, damage):
    with pytest.raises(DatasetError):
        unpack(damage(packed({"happy/1.png": PICTURE})), tmp_path, LIMITS)


def test_an_archive_without_pictures_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="no pictures"):
        unpack(packed({"readme.txt": b"hello"}), tmp_path, LIMITS)
