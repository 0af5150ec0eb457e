from __future__ import annotations

import os
import stat

import numpy as np
import pytest

from facekit.data.cache import publish
from facekit.encoding import written_video
from facekit.writing import write_atomically, written


def write_text(path):
    with written(path) as stream:
        stream.write("new")


def write_video(path):
    with written_video(path, 25) as write:
        write(np.zeros((48, 64, 3), np.uint8), 0)


WAYS = {
    "text": write_text,
    "bytes": lambda path: write_atomically(path, b"new"),
    "video": write_video,
    "cache": lambda path: publish(path, lambda file: file.write(b"new")),
}


@pytest.fixture
def umask():
    """Set the umask for a test."""
    before = os.umask(0)
    yield os.umask
    os.umask(before)


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("way", WAYS)
def test_a_new_file_has_the_mode_that_the_umask_leaves(way, umask, tmp_path):
    for mask, expected in ((0o077, 0o600), (0o002, 0o664)):
        umask(mask)
        path = tmp_path / f"{mask}.mp4"
        WAYS[way](path)
        assert mode_of(path) == expected


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_is_replaced_keeps_its_mode(way, umask, tmp_path):
    umask(0o022)
    for mode in (0o600, 0o664):
        path = tmp_path / f"{mode}.mp4"
        path.touch()
        path.chmod(mode)
        WAYS[way](path)
        assert path.stat().st_size
        assert mode_of(path) == mode


def test_what_replaces_a_private_file_is_private_before_it_is_whole(umask, tmp_path):
    umask(0o022)
    path = tmp_path / "a.txt"
    path.touch(0o600)
    with written(path):
        assert {mode_of(file) for file in tmp_path.iterdir()} == {0o600}
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def stop() -> None:
        with written(path) as stream:
            stream.write("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
