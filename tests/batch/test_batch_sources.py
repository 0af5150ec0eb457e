from __future__ import annotations

import base64
import csv
import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from facekit.batch.chunks import is_picture
from facekit.batch.plan import make_plan, read_plan
from facekit.batch.sources import find_chunks, read_chunk
from facekit.errors import ConfigError, DatasetError, ImageError

NAMES = [f"{'long-' * 30 if place == 3 else ''}{place:02}.jpg" for place in range(11)]
CONTENTS = [bytes([place]) * (100 + 700 * place) for place in range(11)]


def found(*sources, size=4, most=5, **options):
    """Read what the sources stand for, chunk by chunk, last chunk first: no chunk depends on another."""
    chunks = list(find_chunks([str(source) for source in sources], size, most, **options))
    read = [list(read_chunk(chunk)) for chunk in reversed(chunks)]
    assert [len(part) for part in read] == [chunk.count for chunk in reversed(chunks)]
    return [picture for part in reversed(read) for picture in part]


def write_tar(path: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in zip(NAMES, CONTENTS, strict=True):
            for member, content in ((name, data), (name.replace(".jpg", ".json"), b"{}"), (f"._{name}", b"")):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def write_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("notes")
        for name, data in zip(NAMES, CONTENTS, strict=True):
            archive.writestr(name, data)
            archive.writestr(name.replace(".jpg", ".cls"), "1")
    return path


def write_csv(path: Path, column: str, cells: list[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8-sig") as stream:
        table = csv.writer(stream)
        table.writerow(["remark", column])
        table.writerows(
            [["one line\nand another, ü" if row % 2 else "", cell] for row, cell in enumerate(cells)]
        )
    return path


def write_parquet(path: Path, /, **columns) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet is read with pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path, row_group_size=6)
    return path


@pytest.mark.parametrize("size", [1, 4, 50])
@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_archives_give_each_picture_once_from_any_chunk(tmp_path, write, size):
    path = write(tmp_path / f"shard.{write.__name__.removeprefix('write_')}")
    expected = [(f"{path}/{name}", data) for name, data in zip(NAMES, CONTENTS, strict=True)]
    assert found(path, size=size) == expected


@pytest.mark.parametrize("size", [1, 4, 50])
def test_tables_of_paths_begin_in_their_own_folder(tmp_path, size):
    expected = [(f"{tmp_path}/{name}",) * 2 for name in NAMES]
    listed = tmp_path / "list.txt"
    listed.write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(NAMES).encode() + b"\r\n")
    assert found(listed, size=size) == expected
    assert found(write_csv(tmp_path / "a.csv", "image", NAMES), size=size) == expected
    assert found(write_parquet(tmp_path / "a.parquet", path=NAMES, other=range(11)), size=size) == expected
    rooted = found(listed, size=size, root="/elsewhere")
    assert rooted == [(f"/elsewhere/{name}",) * 2 for name in NAMES]


def test_tables_hold_pictures_in_bytes_in_base64_and_as_the_datasets_library_stores_them(tmp_path):
    path = write_csv(
        tmp_path / "a.csv", "image_bytes", [base64.b64encode(data).decode() for data in CONTENTS]
    )
    assert found(path) == [(f"{path}/{row}", data) for row, data in enumerate(CONTENTS)]
    path = write_parquet(tmp_path / "a.parquet", bytes=CONTENTS)
    assert found(path) == [(f"{path}/{row}", data) for row, data in enumerate(CONTENTS)]
    rows = [{"bytes": data, "path": name} for name, data in zip(NAMES, CONTENTS, strict=True)]
    rows[2]["bytes"], rows[5] = None, {"bytes": CONTENTS[5], "path": None}
    path = write_parquet(tmp_path / "b.parquet", picture=rows)
    read = found(path, column="picture")
    assert read[0] == (f"{path}/{NAMES[0]}", CONTENTS[0])
    assert read[2] == (f"{tmp_path}/{NAMES[2]}",) * 2
    assert read[5] == (f"{path}/5", CONTENTS[5])


def test_a_cell_without_a_picture_is_an_error_in_its_place(tmp_path):
    read = found(write_csv(tmp_path / "a.csv", "bytes", ["", "no base64!", "AAAA"]))
    assert [type(source) for _, source in read] == [ImageError, ImageError, bytes]
    assert "nothing" in str(read[0][1])
    read = found(write_parquet(tmp_path / "a.parquet", path=[1, 2]))
    assert "type int" in str(read[0][1])


def test_folders_are_read_in_order_without_hidden_files_and_others(tmp_path):
    for name in ("t.jpg", "a.PNG", "sub/c.webp", "sub/deep/d.jpg", ".e.jpg", ".git/f.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names = ["a.PNG", "sub/c.webp", "sub/deep/d.jpg", "t.jpg"]
    assert found(tmp_path, size=3) == [(f"{tmp_path}/{name}",) * 2 for name in names]
    assert not is_picture("a/.hidden.jpg")


def test_pictures_and_urls_named_one_by_one_stand_between_containers_in_the_order_given(tmp_path):
    for name in ("a.jpg", "b.jpg", "folder/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    url = "https://example.org/x.jpg"
    read = found(tmp_path / "[ab].jpg", url, tmp_path / "folder", tmp_path / "a.jpg")
    names = [f"{tmp_path}/a.jpg", f"{tmp_path}/b.jpg", url, f"{tmp_path}/folder/c.jpg", f"{tmp_path}/a.jpg"]
    assert read == [(name, name) for name in names]


@pytest.mark.parametrize("cut", [700, 3000, 20_000])
def test_a_tar_file_that_is_cut_off_gives_what_it_holds_and_an_error(tmp_path, cut):
    path = write_tar(tmp_path / "a.tar")
    os.truncate(path, cut)
    *read, (name, error) = found(path)
    assert name == str(path)
    assert "get the archive anew" in str(error)
    complete = [source for _, source in read if source in CONTENTS]
    assert complete == CONTENTS[: len(complete)]
    assert len(read) - len(complete) <= 1


def test_a_broken_header_amid_a_tar_file_is_told(tmp_path):
    path = write_tar(tmp_path / "a.tar")
    with tarfile.open(path) as archive:
        place = archive.getmember(NAMES[6]).offset
    data = bytearray(path.read_bytes())
    data[place : place + 512] = b"x" * 512
    path.write_bytes(data)
    read = found(path)
    assert [source for _, source in read[:-1]] == CONTENTS[:6]
    assert f"byte {place:,}" in str(read[-1][1])


def test_a_broken_zip_or_parquet_file_is_one_error_and_a_broken_member_another(tmp_path):
    path = write_zip(tmp_path / "a.zip")
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo(NAMES[2]).header_offset + 30 + len(NAMES[2])
    path.write_bytes(data[:place] + b"\xff\xff" + data[place + 2 :])
    assert [isinstance(source, ImageError) for _, source in found(path)] == [k == 2 for k in range(11)]
    for broken in (tmp_path / "b.zip", tmp_path / "b.parquet"):
        broken.write_bytes(data[:100])
        ((name, error),) = found(broken)
        assert (name, type(error)) == (str(broken), ImageError)


def test_a_broken_lzma_member_and_a_name_that_is_no_text_do_not_end_the_run(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name in ("a.jpg", "b.jpg"):
            archive.writestr(name, os.urandom(4000))
    data = bytearray(path.read_bytes())
    data[2000:2100] = bytes(byte ^ 0xFF for byte in data[2000:2100])
    path.write_bytes(data)
    (_, first), (_, second) = found(path)
    assert "cannot be unpacked" in str(first)
    assert len(second) == 4000
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("é.jpg", b"x")
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xfe"))
    ((name, error),) = found(path)
    assert name == str(path)
    assert "get the archive anew" in str(error)


def test_a_damaged_row_group_fails_alone(tmp_path):
    random = [os.urandom(3000) for _ in range(11)]
    path = write_parquet(tmp_path / "a.parquet", bytes=random)
    data = bytearray(path.read_bytes())
    data[4:60] = bytes(56)  # the first page's header
    path.write_bytes(data)
    read = found(path)
    assert [name for name, _ in read] == [f"{path}/{row}" for row in range(11)]
    assert all("row group 0 is damaged" in str(source) for _, source in read[:6])
    assert [source for _, source in read[6:]] == random[6:]


def test_a_path_that_is_no_text_is_an_error_in_its_place(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", path=["a.jpg", "QQQ", "b.jpg"])
    path.write_bytes(path.read_bytes().replace(b"QQQ", b"\xff\xfe\xfd"))
    read = found(path)
    assert [type(source) for _, source in read] == [str, ImageError, str]
    assert "not text" in str(read[1][1])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gone.jpg", "no such file or folder"),
        ("*.jpg", "no file matches"),
        (".", "no pictures in this folder"),
        ("a.tar.gz", "unpack the compression"),
        ("two.csv", "which column holds the pictures"),
        ("empty.csv", "the file is empty"),
    ],
)
def test_a_source_that_stands_for_nothing_stops_the_run_before_it_begins(
    tmp_path, monkeypatch, source, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.tar.gz").touch()
    (tmp_path / "two.csv").write_text("a,b\n1,2\n")
    (tmp_path / "empty.csv").touch()
    with pytest.raises((ConfigError, DatasetError), match=message):
        found(source)


def test_a_column_that_is_not_there_is_told_with_those_that_are(tmp_path):
    with pytest.raises(ConfigError, match="no column 'face'; it has remark, path"):
        found(write_csv(tmp_path / "a.csv", "path", NAMES), column="face")


def test_a_container_that_was_changed_is_not_read_at_the_old_places(tmp_path):
    path = write_tar(tmp_path / "a.tar")
    (first, *_) = find_chunks([str(path)], 4, 4)
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(DatasetError, match="changed since this run was planned"):
        list(read_chunk(first))


def test_a_plan_is_read_back_as_it_was_made(tmp_path):
    path = write_tar(tmp_path / "a.tar")
    (tmp_path / "b.jpg").touch()
    name = os.fsdecode(b"\xff.jpg")  # no UTF-8
    (tmp_path / name).touch()
    chunks = list(find_chunks([str(path), str(tmp_path / "b.jpg"), str(tmp_path / name)], 4, 4))
    made = make_plan(tmp_path / "out", {"a": 1}, chunks, 6)
    read = read_plan(tmp_path / "out", {"a": 1})
    assert read == made
    assert (read.pictures, read.count) == (13, 2)
    assert [chunk for part in read.parts() for chunk in part.chunks] == chunks
    assert [part.pictures for part in read.parts()] == [8, 5]
    with pytest.raises(ConfigError, match="a 1, now 2"):
        read_plan(tmp_path / "out", {"a": 2})
