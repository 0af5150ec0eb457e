from __future__ import annotations

import inspect
import json
import shutil
import struct
import subprocess
import sys
import threading
from itertools import islice
from pathlib import Path

import clips
import numpy as np
import pytest

from facekit import FaceAnalyzer, analyze_video
from facekit.decoding import Video, missing_bytes
from facekit.encoding import written_video
from facekit.errors import ConfigError, DetectorError, ImageError
from facekit.readahead import ahead
from facekit.schema import EXPRESSIONS
from facekit.smoothing import FaceSmoother
from facekit.timeline import BINS, Timeline
from facekit.video import BATCH, FRAME_COLUMNS


@pytest.fixture(scope="module")
def analyzer() -> FaceAnalyzer:
    return FaceAnalyzer(device="cpu", detector="none")


def sway(count: int) -> list[tuple[float, float]]:
    return [(120 + 30 * np.sin(step / 8), 85 + 8 * np.sin(step / 5)) for step in range(count)]


@pytest.fixture(scope="module")
def swaying(tmp_path_factory) -> Path:
    """The astronaut's face on the path `sway`, 32 frames."""
    path = tmp_path_factory.mktemp("clips") / "sway.mp4"
    return clips.write_clip(path, [clips.portrait_at(*place) for place in sway(32)])


def analyse(path, analyzer, boxes_of, **options):
    """Analyse a clip in which a detector finds faces centred at the places that `boxes_of` gives."""
    analyzer.detector = clips.KnownFaces(boxes_of)
    return list(analyze_video(path, analyzer=analyzer, **options))


@pytest.fixture(scope="module")
def swayed(swaying, analyzer):
    """What is found in `swaying` when the detector finds every face."""
    return analyse(swaying, analyzer, lambda step: [sway(32)[step]])


def noses(frames) -> np.ndarray:
    return np.array([frame.faces[0].keypoints["nose_tip"] for frame in frames])


def distance_to_path(frames) -> np.ndarray:
    """How far the nose is from where the path takes it, by the mean offset of the clip."""
    offset = noses(frames) - np.array(sway(32))[[frame.frame for frame in frames]]
    return np.hypot(*(offset - offset.mean(0)).T)


def test_every_frame_gives_the_object_of_the_contract(swayed):
    frames = swayed
    assert [frame.frame for frame in frames] == list(range(32))
    assert [frame.time for frame in frames] == pytest.approx(np.arange(32) / 25, abs=1e-6)
    one = json.loads(frames[5].to_json())
    assert list(one) == ["frame", "time", "width", "height", "error", "faces"]
    assert (one["frame"], one["time"], one["width"], one["height"], one["error"]) == (5, 0.2, 240, 180, None)
    (face,) = one["faces"]
    assert list(face) == ["id", "box", "score", "keypoints", "sigma", "expression"]
    assert face["id"] == 1
    assert tuple(face["expression"]["scores"]) == EXPRESSIONS
    assert sum(face["expression"]["scores"].values()) == pytest.approx(1, abs=1e-5)
    assert all(len(frame) == 1 and frame[0].id == 1 for frame in frames)
    assert frames[0].draw().shape == (180, 240, 3)
    assert distance_to_path(frames).max() < 4


def test_a_frame_is_shown_without_its_pixels(swayed):
    assert repr(swayed[5]).startswith("frame 5 Faces(None, 240x180, [#1 Face(")
    assert len(repr(swayed[5][0])) < 80


def test_rows_and_table_say_the_same_as_the_object(swaying, analyzer):
    two = analyse(swaying, analyzer, lambda step: [sway(32)[step]] if step else [])[:2]
    empty, full = two[0].to_empty_row(), two[1].to_rows()[0]
    assert len(empty) == len(full) == len(FRAME_COLUMNS)
    assert empty[:6] == [0, 0.0, 240, 180, None, None]
    named = dict(zip(FRAME_COLUMNS, full, strict=True))
    face = two[1].to_dict()["faces"][0]
    assert (named["frame"], named["id"], named["x0"]) == (1, 1, face["box"][0])
    assert named["nose_tip_x"] == face["keypoints"]["nose_tip"][0]
    assert named["expression"] == face["expression"]["label"]
    assert list(two[1].to_frame().columns) == list(FRAME_COLUMNS)
    assert len(two[1].to_frame()) == 1


def test_smoothing_is_the_smoother_on_the_raw_frames(swaying, swayed, analyzer):
    raw = analyse(swaying, analyzer, lambda step: [sway(32)[step]], raw=True)
    smoother = FaceSmoother()
    for before, after in zip(raw, swayed, strict=True):
        face, given = before.faces[0], after.faces[0]
        scores = np.array([*face.expression.scores.values()])
        box, points, scores = smoother(before.time, face.box, face.keypoints.xy, face.keypoints.sigma, scores)
        assert np.allclose(given.box, box, atol=0.01)
        assert np.allclose(given.keypoints.xy, points, atol=0.01)
        assert np.allclose([*given.expression.scores.values()], scores, atol=1e-4)
        assert given.expression.label == max(
            given.expression.scores, key=lambda label: given.expression.scores[label]
        )


def test_between_searches_faces_are_followed_by_their_keypoints(swaying, analyzer):
    frames = analyse(swaying, analyzer, lambda call: [sway(32)[call * 8]], every=8, raw=True)
    assert analyzer.detector.calls == 4
    assert [[face.id for face in frame.faces] for frame in frames] == [[1]] * 32
    assert distance_to_path(frames).max() < 4
    centres = np.array([(frame[0].box[:2] + frame[0].box[2:]) / 2 for frame in frames])
    assert np.abs(centres - np.array(sway(32))).max() < 6


def test_what_the_detector_misses_for_a_while_is_bridged(swaying, analyzer):
    missed = range(10, 25)
    frames = analyse(swaying, analyzer, lambda step: [] if step in missed else [sway(32)[step]])
    assert [[face.id for face in frame.faces] for frame in frames] == [[1]] * 32
    assert distance_to_path(frames).max() < 4


def test_a_slip_of_the_detector_does_not_move_the_face(swaying, analyzer):
    """Haar's cascades do that: a box half as large, beside the face's middle."""
    slips = {12: (14.0, -8.0, 40.0), 20: (-14.0, -8.0, 40.0)}

    def boxes_of(step: int) -> list[tuple[float, ...]]:
        x, y = sway(32)[step]
        right, down, side = slips.get(step, (0.0, 0.0, 76.0))
        return [(x + right, y + down, side)]

    frames = analyse(swaying, analyzer, boxes_of, raw=True)
    assert [[face.id for face in frame.faces] for frame in frames] == [[1]] * 32
    assert distance_to_path(frames).max() < 3
    sides = np.array([frame[0].box[2] - frame[0].box[0] for frame in frames])
    assert sides.min() > 65


@pytest.mark.parametrize(("away", "expected"), [(10, 1), (30, 2)])
def test_a_face_that_is_covered_is_not_made_up(tmp_path, analyzer, away, expected):
    """Behind a board the network would still place points; back in time the face has its id again."""
    board = np.random.default_rng(0).integers(90, 160, (180, 240, 3), np.uint8)
    view = clips.portrait_at(120, 85)
    covered = view.copy()
    covered[10:170, 50:190] = board[10:170, 50:190]
    path = clips.write_clip(tmp_path / "a.mp4", [view] * 6 + [covered] * away + [view] * 4)
    there = [*[True] * 6, *[False] * away, *[True] * 4]
    frames = analyse(path, analyzer, lambda step: [(120, 85)] if there[step] else [])
    ids = [[face.id for face in frame.faces] for frame in frames]
    assert ids == [[1]] * 6 + [[]] * away + [[expected]] * 4


def test_another_scene_has_other_people(tmp_path, analyzer):
    random = np.random.default_rng(4)
    backgrounds = [
        np.kron(random.integers(0, 256, (6, 8, 3), np.uint8), np.ones((30, 30, 1), np.uint8))
        for _ in range(2)
    ]
    scenes = [clips.portrait_at(120, 85, background=behind) for behind in backgrounds]
    path = clips.write_clip(tmp_path / "a.mp4", [scenes[0]] * 7 + [scenes[1]] * 7)
    frames = analyse(path, analyzer, lambda _: [(120, 85)], every=5)
    assert [[face.id for face in frame.faces] for frame in frames] == [[1]] * 7 + [[2]] * 7
    assert analyzer.detector.calls == 4  # frames 0 and 5, the cut at 7, and 12


def test_a_batch_gives_what_single_frames_give(swaying, swayed, analyzer, monkeypatch):
    monkeypatch.setattr("facekit.video.BATCH", 1)
    alone = analyse(swaying, analyzer, lambda step: [sway(32)[step]])
    for one, other in zip(swayed, alone, strict=True):
        assert np.allclose(one[0].keypoints.xy, other[0].keypoints.xy, atol=0.3)


def test_it_is_a_generator_that_checks_its_arguments_at_once(tmp_path, swaying, analyzer):
    frames = analyze_video(swaying, analyzer=analyzer)
    assert inspect.isgenerator(frames)
    frames.close()
    with pytest.raises(ImageError, match="no such file"):
        analyze_video(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ImageError, match="not a video that OpenCV can read"):
        analyze_video(tmp_path / "text.mp4")
    with pytest.raises(ConfigError, match="every is 0"):
        analyze_video(swaying, every=0)
    with pytest.raises(ImageError, match="the limit is 100 pixels"):
        Video(swaying, max_pixels=100)


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name == "facekit-ahead"}


def test_leaving_early_ends_the_threads_and_only_a_few_frames_were_decoded(swaying, analyzer):
    class Counted(Video):
        decoded = 0

        def frames(self):
            for frame in super().frames():
                self.decoded += 1
                yield frame

    analyzer.detector = clips.KnownFaces(lambda _: [])
    video = Counted(swaying)
    frames = analyze_video(video, analyzer=analyzer)
    next(frames)
    frames.close()
    assert video.decoded <= 3 * BATCH + 3
    assert not threads()


def test_an_error_in_a_thread_reaches_whoever_takes_the_frames(swaying, analyzer):
    def fail(step: int) -> list[tuple[float, float]]:
        if step == 20:
            raise DetectorError("out of order")
        return []

    analyzer.detector = clips.KnownFaces(fail)
    frames = analyze_video(swaying, analyzer=analyzer)
    with pytest.raises(DetectorError, match="out of order"):
        list(frames)
    assert not threads()


def test_ahead_gives_all_in_order_and_drops_the_oldest_where_it_may():
    taken, done = threading.Event(), threading.Event()

    def camera():
        yield 0
        assert taken.wait(10)
        yield from range(1, 100)
        done.set()

    assert list(ahead((number for number in range(100)), 3)) == list(range(100))
    live = ahead(camera(), 2, newest=True)
    assert next(live) == 0
    taken.set()
    assert done.wait(10)
    rest = list(live)
    assert rest in ([98, 99], [99])


# What files do.


@pytest.fixture(scope="module")
def gray_frames() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(20)]


def test_times_are_the_containers(tmp_path, gray_frames):
    whole = clips.write_clip(tmp_path / "a.mp4", gray_frames).read_bytes()
    path = tmp_path / "b.mp4"
    path.write_bytes(clips.with_times(whole, [(10, 0.04), (10, 0.12)]))
    times = [frame.time for frame in Video(path).frames()]
    assert np.diff(times) == pytest.approx([0.04] * 10 + [0.12] * 9, abs=1e-3)


def test_a_video_is_turned_as_it_asks(tmp_path, gray_frames):
    marked = [frame // 8 for frame in gray_frames]
    for frame in marked:
        frame[:16, :16] = 255
    path = clips.write_clip(tmp_path / "a.mp4", marked)
    path.write_bytes(clips.turned(path.read_bytes()))
    video = Video(path)
    assert (video.width, video.height) == (48, 64)
    for frame in video.frames():
        assert frame.image.shape == (64, 48, 3)
        assert frame.image[4:12, -12:-4].mean() > 150  # top left is top right after a turn to the right
        assert frame.image[-12:-4, 4:12].mean() < 60


def test_a_broken_frame_is_told_in_its_place_and_the_others_are_there(tmp_path, gray_frames):
    path = clips.write_clip(tmp_path / "a.avi", gray_frames, "MJPG")
    data = bytearray(path.read_bytes())
    start = [place for place in range(len(data)) if data[place : place + 3] == b"\xff\xd8\xff"][7]
    data[start : start + 1500] = bytes(1500)
    path.write_bytes(data)
    frames = list(Video(path).frames())
    assert [frame.index for frame in frames] == list(range(20))
    assert [frame.index for frame in frames if frame.error] == [7]
    assert frames[7].image is None
    assert "frame 7 is damaged" in frames[7].error
    assert [frame.time for frame in frames] == pytest.approx(np.arange(20) / 25, abs=1e-3)


@pytest.mark.data
def test_after_a_break_in_the_stream_the_rest_is_kept(data_folder, tmp_path):
    whole = (data_folder / "videos" / "video_test_1.mp4").read_bytes()
    middle = len(whole) // 2
    path = tmp_path / "a.mp4"
    path.write_bytes(whole[:middle] + bytes(3000) + whole[middle + 3000 :])
    frames = list(Video(path).frames())
    broken = [frame.index for frame in frames if frame.error]
    assert 5 < len(broken) < 40
    assert frames[-1].error is None
    assert frames[-1].time > 7.5
    assert (np.diff([frame.time for frame in frames]) > 0).all()


@pytest.mark.parametrize(("suffix", "code"), [(".avi", "MJPG"), (".mkv", "mp4v")])
def test_a_file_that_is_cut_off_says_so_at_its_end(tmp_path, gray_frames, suffix, code):
    path = clips.write_clip(tmp_path / f"a{suffix}", gray_frames, code)
    assert missing_bytes(path) == 0
    assert all(frame.error is None for frame in Video(path).frames())
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    assert missing_bytes(path) == len(data) - len(data) * 6 // 10
    *frames, last = Video(path).frames()
    assert 5 < len(frames) < 20
    assert "cut off" in last.error
    assert last.index == len(frames)


def test_an_mp4_without_its_end_cannot_be_read_and_says_why(tmp_path, gray_frames):
    path = clips.write_clip(tmp_path / "a.mp4", gray_frames)
    assert missing_bytes(path) == 0
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ImageError, match=r"cut off, [\d,]+ bytes are missing, its index among them"):
        Video(path)


def test_an_mp4_with_its_index_in_front_is_read_as_far_as_it_goes(tmp_path, gray_frames):
    data = clips.write_clip(tmp_path / "a.mp4", gray_frames).read_bytes()
    boxes = dict(clips._boxes(data))
    shift = len(boxes["moov"]) + 8

    def moved(body: bytes) -> bytes:
        count = struct.unpack(">I", body[4:8])[0]
        places = struct.unpack(f">{count}I", body[8:])
        return body[:8] + struct.pack(f">{count}I", *(place + shift for place in places))

    index = clips._changed(data, ["moov", "trak", "mdia", "minf", "stbl", "stco"], moved)
    moov = dict(clips._boxes(index))["moov"]
    head = b"".join(
        struct.pack(">I4s", len(body) + 8, kind.encode()) + body
        for kind, body in (("ftyp", boxes["ftyp"]), ("moov", moov), ("free", boxes["free"]))
    )
    whole = head + struct.pack(">I4s", len(boxes["mdat"]) + 8, b"mdat") + boxes["mdat"]
    path = tmp_path / "b.mp4"
    path.write_bytes(whole)
    assert [frame.error for frame in Video(path).frames()] == [None] * 20
    path.write_bytes(whole[: len(whole) * 6 // 10])
    frames = list(Video(path).frames())
    assert sum(frame.error is None for frame in frames) > 5
    assert "cut off" in frames[-1].error


def test_writing_keeps_time_and_is_atomic(tmp_path, gray_frames):
    """Pictures at 0, 0.1 and 0.4 s at 25 frames a second: the first stays for three frames."""
    target = tmp_path / "new" / "a.mp4"
    with written_video(target, 25) as write:
        for picture, time in zip(gray_frames, (0.0, 0.12, 0.13, 0.4), strict=False):
            write(picture, time)
        assert not target.exists()
    frames = [frame.image.astype(int) for frame in Video(target).frames()]
    assert len(frames) == 11
    assert np.abs(frames[2] - frames[0]).mean() < 8 < np.abs(frames[3] - frames[2]).mean()
    assert [path.name for path in target.parent.iterdir()] == ["a.mp4"]


def test_a_leap_of_damaged_times_is_shortened(tmp_path, gray_frames, caplog):
    with written_video(tmp_path / "a.mp4", 2) as write:
        for picture, time in zip(gray_frames, (0.0, 0.5, 2000.5, 2001, 2060), strict=False):
            write(picture, time)
    frames = [frame.image.astype(int) for frame in Video(tmp_path / "a.mp4").frames()]
    assert len(frames) == 2 * (0.5 + 60 + 0.5 + 59) + 1
    assert "leap by 2000 s; 60 s of that are written" in caplog.text
    assert np.abs(frames[120] - frames[1]).mean() < 8 < np.abs(frames[121] - frames[120]).mean()


def test_a_failed_or_empty_video_leaves_what_was_there(tmp_path, gray_frames):
    target = tmp_path / "a.mp4"
    target.write_text("old")

    def fail() -> None:
        with written_video(target, 25) as write:
            write(gray_frames[0], 0)
            raise DetectorError("broken")

    with pytest.raises(DetectorError):
        fail()
    with written_video(target, 25):
        pass
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    with pytest.raises(ConfigError, match=r"ends in \.mp4"), written_video(tmp_path / "a.avi", 25):
        pass


def test_sizes_that_are_odd_or_change_are_written(tmp_path, gray_frames):
    with written_video(tmp_path / "a.mp4", 25) as write:
        write(gray_frames[0][:47, :63], 0)
        write(gray_frames[1], 0.04)
    assert len(list(Video(tmp_path / "a.mp4").frames())) == 2


def with_sound(path: Path, pictures: list[np.ndarray], ffmpeg: str) -> Path:
    silent = clips.write_clip(path.with_suffix(".silent.mp4"), pictures)
    tone = ["-f", "lavfi", "-i", "sine=frequency=440:duration=0.8", "-c:v", "copy", "-c:a", "aac"]
    subprocess.run(
        [ffmpeg, "-v", "error", "-y", "-i", str(silent), *tone, str(path)],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return path


def test_the_sound_is_kept(tmp_path, gray_frames):
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        pytest.skip("the program ffmpeg is not installed")
    source = with_sound(tmp_path / "sound.mp4", gray_frames, ffmpeg)
    with written_video(tmp_path / "a.mp4", 25, source) as write:
        for place, picture in enumerate(gray_frames[:15]):
            write(picture, place / 25)
    told = subprocess.run([ffmpeg, "-i", str(tmp_path / "a.mp4")], capture_output=True, text=True).stderr
    assert "Audio: aac" in told
    assert "Duration: 00:00:00.6" in told
    assert len(list(Video(tmp_path / "a.mp4").frames())) == 15


def test_without_ffmpeg_or_where_it_fails_the_pictures_are_kept(tmp_path, gray_frames, monkeypatch, caplog):
    source = tmp_path / "sound.mp4"
    source.write_bytes(b"hdlr" + bytes(8) + b"soun")
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools))

    def write_one(name: str) -> None:
        with written_video(tmp_path / name, 25, source) as write:
            write(gray_frames[0], 0)

    write_one("a.mp4")
    assert "its sound is left out: that takes the program ffmpeg" in caplog.text
    program = tools / "ffmpeg"
    program.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('no such stream')\n")
    program.chmod(0o755)
    write_one("b.mp4")
    assert "its sound cannot be kept: ffmpeg: no such stream" in caplog.text
    for name in ("a.mp4", "b.mp4"):
        assert len(list(Video(tmp_path / name).frames())) == 1
    assert len([path for path in tmp_path.iterdir() if path.suffix == ".mp4"]) == 3


# What a video shows of its people.


def test_a_timeline_gathers_in_bounded_memory(swayed):
    face = swayed[0][0]
    timeline = Timeline()
    for step in range(20_000):
        faces = [(1, face)] if step % 2 else [(1, face), (2, face)]
        timeline.add(step / 10, faces if step < 15_000 else [])
    first, second = timeline.people()
    assert (first.id, first.frames, second.frames) == (1, 15_000, 7_500)
    assert (second.first, second.last) == (0.0, 1499.8)
    assert first.labels == {face.expression.label: 15_000}
    assert len(first.steps) <= BINS
    assert sum(values[-1] for values in first.steps.values()) == 15_000
    means = [values[:-1] / values[-1] for values in first.steps.values()]
    assert np.allclose(means, [*face.expression.scores.values()], atol=1e-6)


def test_the_plot_has_a_panel_for_each_person_and_none_is_fine(swayed):
    timeline = Timeline()
    assert len(timeline.plot().axes) == 1
    for frame in swayed[9:]:
        timeline.add(frame.time, [(face.id, face) for face in frame.faces])
    timeline.add(1.4, [(2, swayed[9][0])])
    first, second = timeline.plot().axes
    assert first.get_title(loc="left").startswith("#1: ")
    assert second.get_title(loc="left").startswith("#2: ")
    assert len(timeline.plot(most=1).axes) == 1
    bands = [patch.get_data() for patch in first.patches]
    assert len(bands) == len(EXPRESSIONS)
    assert np.isnan(bands[-1].values[0])
    assert np.nanmax(bands[-1].values) == pytest.approx(1, abs=1e-5)


@pytest.mark.data
@pytest.mark.parametrize("name", ["0492_03_009_bill_gates.avi", "video_test_1.mp4"])
def test_one_person_has_one_id_through_a_real_clip(data_folder, name):
    analyzer = FaceAnalyzer(device="cpu")
    frames = list(islice(analyze_video(data_folder / "videos" / name, every=10, analyzer=analyzer), 50))
    assert all(any(face.id == 1 for face in frame.faces) for frame in frames)
