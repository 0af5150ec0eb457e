from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import clips
import numpy as np
import pytest
from PIL import Image

from facekit.decoding import Video
from facekit.video import FRAME_COLUMNS

FLAGS = ("--detector", "none", "--device", "cpu")


@pytest.fixture
def video(facekit, untrained):
    return lambda *arguments: facekit("video", *arguments, *FLAGS, "--weights", untrained)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Twelve frames of the astronaut; the detector `none` takes the whole view for a face."""
    path = tmp_path_factory.mktemp("clips") / "portrait.mp4"
    return clips.write_clip(path, [clips.portrait_at(120 + step, 85) for step in range(12)])


def objects(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_all_outputs_hold_the_same_frames(video, clip, tmp_path):
    names = {name: tmp_path / "new" / name for name in ("a.mp4", "a.jsonl", "a.csv", "a.png")}
    done = video(
        clip,
        *("--out", names["a.mp4"], "--jsonl", names["a.jsonl"]),
        *("--csv", names["a.csv"], "--timeline", names["a.png"]),
    )
    assert done.exit_code == 0, done.stderr
    first, person = done.stdout.splitlines()
    assert first.startswith(f"{clip}: 12 frames, 0.4 s, 1 person; took ")
    assert person.startswith("  #1: 0.0 to 0.4 s, 12 frames: ")
    lines = objects(names["a.jsonl"].read_text())
    assert [line["frame"] for line in lines] == list(range(12))
    assert [line["time"] for line in lines] == pytest.approx([step / 25 for step in range(12)])
    assert all(list(line) == ["frame", "time", "width", "height", "error", "faces"] for line in lines)
    assert [[face["id"] for face in line["faces"]] for line in lines] == [[1]] * 12
    with names["a.csv"].open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == FRAME_COLUMNS
    assert [float(row["x0"]) for row in rows] == [line["faces"][0]["box"][0] for line in lines]
    frames = [frame.image for frame in Video(names["a.mp4"]).frames()]
    assert len(frames) == 12
    plain = [frame.image for frame in Video(clip).frames()]
    assert np.abs(frames[5].astype(int) - plain[5]).max() > 100, "nothing is drawn"
    with Image.open(names["a.png"]) as plot:
        assert plot.width > 800
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(names)


def test_stdout_holds_only_what_goes_to_it(video, clip):
    done = video(clip, "--jsonl", "-")
    assert done.exit_code == 0
    assert [line["frame"] for line in objects(done.stdout)] == list(range(12))
    assert "12 frames" in done.stderr
    table = video(clip, "--csv", "-")
    assert table.stdout.splitlines()[0] == ",".join(FRAME_COLUMNS)


def test_faceless_frames_have_their_line_and_row(facekit, untrained, tmp_path):
    gray = [np.full((60, 80, 3), 120, np.uint8)] * 3
    path = clips.write_clip(tmp_path / "a.mp4", gray)
    flags = ("--detector", "haar", "--device", "cpu", "--weights", untrained)
    done = facekit("video", path, "--jsonl", "-", "--csv", tmp_path / "a.csv", *flags)
    assert done.exit_code == 0
    assert [(line["frame"], line["faces"]) for line in objects(done.stdout)] == [(0, []), (1, []), (2, [])]
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 4


def test_raw_and_every_reach_the_analysis(video, clip):
    smooth, raw = (objects(video(clip, "--jsonl", "-", *flag).stdout) for flag in ((), ("--raw",)))
    assert smooth[0] == raw[0]
    assert smooth[8]["faces"][0]["keypoints"] != raw[8]["faces"][0]["keypoints"]
    few = objects(video(clip, "--jsonl", "-", "--raw", "--every", "20").stdout)
    assert [face["box"] for face in few[8]["faces"]] != [face["box"] for face in raw[8]["faces"]]


def test_a_cut_off_file_is_exit_1_and_the_rest_is_there(video, clip, tmp_path):
    pictures = [frame.image for frame in Video(clip).frames()]
    path = clips.write_clip(tmp_path / "a.avi", pictures, "MJPG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    done = video(path, "--jsonl", tmp_path / "a.jsonl", "--out", tmp_path / "a.mp4")
    assert done.exit_code == 1
    *good, last = objects((tmp_path / "a.jsonl").read_text())
    assert len(good) > 3
    assert all(line["error"] is None and line["faces"] for line in good)
    assert (last["faces"], last["width"], last["height"]) == ([], None, None)
    assert "cut off" in last["error"]
    assert done.stderr == f"facekit: {last['error']}\n"
    assert ", 1 damaged," in done.stdout
    assert len(list(Video(tmp_path / "a.mp4").frames())) == len(good)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.mp4"], "missing.mp4: no such file"),
        (["text.mp4"], "text.mp4: not a video that OpenCV can read"),
        (["97"], "camera 97 does not open"),
        (["{clip}", "--out", "{clip}"], "this is the input"),
        (["{clip}", "--out", "a.gif"], "ends in .mp4"),
        (["{clip}", "--timeline", "a.txt"], "must end in .png, .svg, .pdf"),
        (["{clip}", "--jsonl", "-", "--csv", "-"], "cannot both write to stdout"),
        (["{clip}", "--jsonl", "/proc/nowhere/a.jsonl"], "No such file"),
    ],
)
def test_wrong_settings_are_one_line_and_exit_2(video, clip, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.mp4").write_text("no video")
    before = clip.read_bytes()
    done = video(*(one.format(clip=clip) for one in arguments))
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.startswith("facekit: ")
    assert (done.stderr.count("\n"), done.stdout) == (1, "")
    assert clip.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["text.mp4"]


def test_ctrl_c_leaves_valid_files_and_says_so(video, clip, tmp_path, monkeypatch):
    from facekit.video import FrameFaces

    drawn = FrameFaces.draw

    def press_at_frame_4(faces):
        if faces.frame == 4:
            signal.raise_signal(signal.SIGINT)
        return drawn(faces)

    monkeypatch.setattr(FrameFaces, "draw", press_at_frame_4)
    outputs = ("--out", tmp_path / "a.mp4", "--jsonl", tmp_path / "a.jsonl", "--csv", tmp_path / "a.csv")
    before = signal.getsignal(signal.SIGINT)
    done = video(clip, *outputs, "--timeline", tmp_path / "a.png")
    assert done.exit_code == 130
    assert "stopped after 5 of 12 frames" in done.stdout
    assert [line["frame"] for line in objects((tmp_path / "a.jsonl").read_text())] == list(range(5))
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 6
    assert len(list(Video(tmp_path / "a.mp4").frames())) == 5
    with Image.open(tmp_path / "a.png") as plot:
        assert plot.format == "PNG"
    assert len(list(tmp_path.iterdir())) == 4
    assert signal.getsignal(signal.SIGINT) is before


def test_a_failure_leaves_no_half_written_files(video, clip, tmp_path, monkeypatch):
    from facekit.errors import DetectorError
    from facekit.video import FrameFaces

    def fail(_faces):
        raise DetectorError("out of order")

    monkeypatch.setattr(FrameFaces, "draw", fail)
    done = video(clip, "--jsonl", tmp_path / "a.jsonl", "--out", tmp_path / "a.mp4")
    assert (done.exit_code, done.stderr) == (2, "facekit: out of order\n")
    assert list(tmp_path.iterdir()) == []


def test_a_real_ctrl_c_at_a_terminal(clip, untrained, tmp_path):
    """The program as it is installed, at a pseudo-terminal: its bar, and Ctrl-C in the middle."""
    pty = pytest.importorskip("pty")
    frames = [frame.image for frame in Video(clip).frames()]
    long = clips.write_clip(tmp_path / "long.mp4", frames * 200)
    target = tmp_path / "a.jsonl"
    command = [sys.executable, "-m", "facekit_cli.main", "video", str(long), "--jsonl", str(target), *FLAGS]
    master, slave = pty.openpty()
    program = subprocess.Popen(
        [*command, "--weights", str(untrained)],
        stdout=subprocess.PIPE,
        stderr=slave,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "200"},
        text=True,
    )
    os.close(slave)
    told = b""
    while b"frames/s" not in told or b"/2400" not in told:
        told += os.read(master, 4096)
    program.send_signal(signal.SIGINT)
    out, _ = program.communicate(timeout=120)
    os.close(master)
    assert program.returncode == 130
    lines = objects(target.read_text())
    assert [line["frame"] for line in lines] == list(range(len(lines)))
    assert 0 < len(lines) < 2400
    assert f"stopped after {len(lines)} of 2400 frames" in out


def test_a_camera_is_a_number_unless_a_file_has_that_name(tmp_path, monkeypatch):
    from facekit_cli.video import camera_or_path

    monkeypatch.chdir(tmp_path)
    assert camera_or_path("0") == 0
    Path("0").touch()
    assert camera_or_path("0") == "0"
    assert camera_or_path("0.mp4") == "0.mp4"


def test_webcam_without_a_display_says_what_to_do(facekit, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    done = facekit("webcam", "--camera", "0")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "no display" in done.stderr
    assert "facekit video 0 --out" in done.stderr


class Window:
    """What OpenCV's windows do, without a display."""

    def __init__(self, monkeypatch, key_after: int = 99, closed_after: int = 99) -> None:
        self.shown: list[np.ndarray] = []
        self.open = False
        patches = {
            "namedWindow": lambda *_: setattr(self, "open", True),
            "imshow": lambda _, picture: self.shown.append(picture),
            "waitKey": lambda _: ord("q") if len(self.shown) == key_after else -1,
            "getWindowProperty": lambda *_: float(len(self.shown) < closed_after),
            "destroyAllWindows": lambda: setattr(self, "open", False),
        }
        for name, stand_in in patches.items():
            monkeypatch.setattr(f"cv2.{name}", stand_in)


@pytest.mark.parametrize("ending", [{"key_after": 3}, {"closed_after": 3}])
def test_webcam_shows_drawn_frames_until_it_is_closed(facekit, untrained, clip, monkeypatch, ending):
    window = Window(monkeypatch, **ending)
    monkeypatch.setattr("facekit_cli.webcam.window_opens", lambda: True)
    monkeypatch.setattr("facekit.decoding.Video.__init__", as_camera(clip, window))
    done = facekit("webcam", *FLAGS, "--weights", untrained)
    assert done.exit_code == 0, done.stderr
    assert len(window.shown) == 3
    assert window.shown[0].shape == (180, 240, 3)
    assert not window.open


def test_a_camera_that_stops_is_reported(facekit, untrained, clip, monkeypatch):
    window = Window(monkeypatch)
    monkeypatch.setattr("facekit_cli.webcam.window_opens", lambda: True)
    monkeypatch.setattr("facekit.decoding.Video.__init__", as_camera(clip, window))
    done = facekit("webcam", *FLAGS, "--weights", untrained)
    assert (done.exit_code, done.stderr) == (2, "facekit: camera 0 gives no more pictures\n")
    assert len(window.shown) == 12
    assert not window.open


class Camera:
    """A file that gives its next picture when the last one is on the screen."""

    def __init__(self, capture, window: Window) -> None:
        self.capture, self.window, self.given = capture, window, 0

    def grab(self) -> bool:
        while len(self.window.shown) < self.given and (self.window.open or not self.window.shown):
            time.sleep(0.001)
        self.given += 1
        return self.capture.grab()

    def retrieve(self):
        return self.capture.retrieve()

    def release(self) -> None:
        self.capture.release()


def as_camera(clip: Path, window: Window):
    """Give a Video.__init__ that opens a file and takes it for a camera."""
    opened = Video.__init__

    def open_as_camera(self, source, max_pixels=10**6):
        opened(self, clip, max_pixels)
        self.live, self.name = True, f"camera {source}"
        self._capture = Camera(self._capture, window)

    return open_as_camera
