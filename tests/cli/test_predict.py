from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facekit.results import COLUMNS
from facekit.schema import EXPRESSIONS, KEYPOINTS

FLAGS = ("--detector", "none", "--device", "cpu")


@pytest.fixture
def predict(facekit, untrained):
    return lambda *arguments, **options: facekit(
        "predict", *arguments, *FLAGS, "--weights", untrained, **options
    )


def names(text: str) -> list[str]:
    return [one["image"] for one in json.loads(text)]


def test_a_picture_gives_one_object_of_the_contract(predict, album):
    done = predict(album / "b.jpg", "--json", "-")
    assert done.exit_code == 0
    assert done.stderr == ""
    (one,) = json.loads(done.stdout)
    assert list(one) == ["image", "width", "height", "weights", "error", "faces"]
    assert one["image"] == str(album / "b.jpg")
    assert (one["width"], one["height"], one["weights"], one["error"]) == (60, 40, "untrained-0", None)
    (face,) = one["faces"]
    assert list(face) == ["box", "score", "keypoints", "sigma", "expression"]
    assert face["box"] == [0, 0, 60, 40]
    assert tuple(face["keypoints"]) == tuple(face["sigma"]) == KEYPOINTS
    assert tuple(face["expression"]["scores"]) == EXPRESSIONS
    assert sum(face["expression"]["scores"].values()) == pytest.approx(1, abs=1e-5)


def test_a_folder_is_searched_and_sorted(predict, album):
    expected = [f"{album}/{name}" for name in ("a.png", "b.jpg", "sub/b.jpg", "sub/deep/c.webp", "z.jpeg")]
    assert names(predict(album, "--json", "-").stdout) == expected
    assert names(predict(f"{album}/", "--json", "-").stdout) == expected


def test_names_are_as_given(predict, album, monkeypatch):
    monkeypatch.chdir(album)
    done = predict("./a.png", ".", "sub", "b.jpg", "--json", "-")
    found = names(done.stdout)
    assert found[0] == "./a.png"
    assert found[1:6] == ["./a.png", "./b.jpg", "./sub/b.jpg", "./sub/deep/c.webp", "./z.jpeg"]
    assert found[6:] == ["sub/b.jpg", "sub/deep/c.webp", "b.jpg"]


def test_globs_are_expanded(predict, album, save_picture):
    assert names(predict(f"{album}/*.jp*g", "--json", "-").stdout) == [f"{album}/b.jpg", f"{album}/z.jpeg"]
    found = names(predict(f"{album}/**/b.jpg", "--json", "-").stdout)
    assert found == [f"{album}/b.jpg", f"{album}/sub/b.jpg"]
    (album / "notes.txt").unlink()
    found = names(predict(f"{album}/**", "--json", "-").stdout)
    assert sorted(found) == names(predict(album, "--json", "-").stdout)
    bracketed = save_picture(album / "c[1].png")
    assert names(predict(bracketed, "--json", "-").stdout) == [str(bracketed)]


def test_a_dash_is_stdin(predict, album):
    done = predict("-", "--json", "-", stdin=(album / "a.png").read_bytes())
    assert done.exit_code == 0
    assert names(done.stdout) == ["-"]
    empty = predict("-", "--json", "-", stdin=b"")
    assert empty.exit_code == 2
    assert "empty" in json.loads(empty.stdout)[0]["error"]


def test_one_bad_file_is_reported_in_its_place_and_the_others_are_analysed(predict, album):
    (album / "m.jpg").write_bytes((album / "b.jpg").read_bytes()[:300])
    (album / "n.jpg").write_text("text")
    (album / "loop.jpg").symlink_to("loop.jpg")
    long = f"{'long' * 75}.jpg"
    done = predict(album, album / "missing.jpg", album / long, "--json", "-", "--batch-size", "2")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    errors = {Path(one["image"]).name: one["error"] for one in found if one["error"]}
    assert set(errors) == {"m.jpg", "n.jpg", "missing.jpg", "loop.jpg", long}
    assert "cut off" in errors["m.jpg"]
    assert "not a picture" in errors["n.jpg"]
    assert "no such file" in errors["missing.jpg"]
    assert "cannot be read" in errors[long]
    for one in found:
        assert bool(one["error"]) == (one["faces"] == []) == (one["width"] is one["height"] is None)
    assert [line.startswith("facekit: ") for line in done.stderr.splitlines()] == [True] * 5


@pytest.mark.parametrize("locked", ["sub", "deep"])
def test_a_folder_that_cannot_be_listed_is_reported_in_its_place(predict, album, monkeypatch, locked):
    def scandir(folder, scandir=os.scandir):
        if Path(folder).name == locked:
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr("os.scandir", scandir)
    done = predict(album, album / "sub", album / "b.jpg", "--json", "-")
    assert done.exit_code == 1
    errors = {one["image"] for one in json.loads(done.stdout) if one["error"]}
    assert errors == {str(next(album.rglob(locked)))}


@pytest.mark.parametrize(
    "given", ["missing.jpg", "empty", "*.none", "http://127.0.0.1:9/a.jpg", "ftp://host/a.jpg", "http://["]
)
def test_nothing_to_analyse_is_exit_2_with_the_list_all_the_same(predict, tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    done = predict(given, "--json", "-")
    assert done.exit_code == 2
    (one,) = json.loads(done.stdout)
    assert (one["image"], one["faces"], one["width"], one["height"]) == (given, [], None, None)
    assert done.stderr == f"facekit: {one['error']}\n"


def test_a_batch_gives_what_one_at_a_time_gives(predict, album):
    together = json.loads(predict(album, "--json", "-").stdout)
    alone = json.loads(predict(album, "--json", "-", "--batch-size", "1").stdout)
    for one, other in zip(together, alone, strict=True):
        assert one["image"] == other["image"]
        for a, b in zip(one["faces"], other["faces"], strict=True):
            assert np.allclose(list(a["keypoints"].values()), list(b["keypoints"].values()), atol=0.3)


def test_json_and_csv_files_are_written_whole(predict, album, tmp_path):
    (album / "broken.jpg").write_bytes(b"")
    target, table = tmp_path / "new" / "all.json", tmp_path / "all.csv"
    table.write_text("old")
    done = predict(album, "--json", target, "--csv", table)
    assert done.exit_code == 1
    assert done.stdout == ""
    found = json.loads(target.read_text())
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == COLUMNS
    assert [row["image"] for row in rows] == [one["image"] for one in found]
    for row, one in zip(rows, found, strict=True):
        if one["error"]:
            assert (row["error"], row["face"], row["happy"]) == (one["error"], "", "")
        else:
            assert float(row["nose_tip_x"]) == one["faces"][0]["keypoints"]["nose_tip"][0]
            assert row["expression"] == one["faces"][0]["expression"]["label"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["album", "all.csv", "new"]


def test_an_interrupted_run_leaves_the_old_file(predict, album, tmp_path, monkeypatch):
    from facekit.results import Faces

    target = tmp_path / "all.json"
    target.write_text("old")

    def interrupt(_self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Faces, "to_json", interrupt)
    done = predict(album, "--json", target)
    assert done.exit_code == 130
    assert target.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["album", "all.json"]


def test_a_device_is_written_to_and_not_replaced(predict, album):
    assert predict(album, "--json", os.devnull).exit_code == 0
    assert not Path(os.devnull).is_file()


def test_text_lines_without_json(predict, album, facekit, untrained):
    lines = predict(album / "a.png", album / "b.jpg").stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{album}/a.png: 1 face: ")
    assert lines[0].endswith("% at 0,0 60x40")
    no_face = facekit("predict", album / "a.png", "--detector", "haar", "--weights", untrained)
    assert (no_face.exit_code, no_face.stdout) == (0, f"{album}/a.png: no face\n")


def test_equal_names_do_not_overwrite_one_another(predict, album, tmp_path):
    done = predict(
        album, album / "sub" / "b.jpg", "--draw", tmp_path / "drawn", "--crops", tmp_path / "faces"
    )
    assert done.exit_code == 0
    drawn = sorted(
        path.relative_to(tmp_path / "drawn").as_posix() for path in (tmp_path / "drawn").rglob("*.*")
    )
    assert drawn == ["a.jpg", "b-2.jpg", "b.jpg", "sub/b.jpg", "sub/deep/c.jpg", "z.jpg"]
    faces = sorted(
        path.relative_to(tmp_path / "faces").as_posix() for path in (tmp_path / "faces").rglob("*.*")
    )
    assert faces == ["a-0.jpg", "b-0-2.jpg", "b-0.jpg", "sub/b-0.jpg", "sub/deep/c-0.jpg", "z-0.jpg"]
    twin = np.asarray(Image.open(tmp_path / "drawn" / "b-2.jpg"))
    assert np.array_equal(twin, np.asarray(Image.open(tmp_path / "drawn" / "sub" / "b.jpg")))
    assert twin.shape == (40, 60, 3)


def test_drawings_and_faces_in_one_folder_do_not_overwrite_one_another(predict, tmp_path, save_picture):
    inputs = [save_picture(tmp_path / name, seed) for seed, name in enumerate(("a.png", "a-0.png"))]
    assert predict(*inputs, "--draw", tmp_path / "out", "--crops", tmp_path / "out").exit_code == 0
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["a-0-0.jpg", "a-0-2.jpg", "a-0.jpg", "a.jpg"]


def test_a_drawing_never_overwrites_an_input(predict, album, tmp_path, save_picture):
    (album / "link.jpg").symlink_to(save_picture(tmp_path / "original.jpg", 9))
    before = {path: path.read_bytes() for path in (*album.rglob("*.*"), tmp_path / "original.jpg")}
    assert predict(album, "--draw", album).exit_code == 0
    assert predict(album, "--draw", album / "sub").exit_code == 0
    assert {path: path.read_bytes() for path in before} == before
    assert (album / "b-2.jpg").is_file()


@pytest.mark.parametrize("option", ["--json", "--csv"])
def test_a_list_never_overwrites_an_input(predict, album, option):
    before = (album / "b.jpg").read_bytes()
    done = predict(album, option, album / "sub" / ".." / "b.jpg")
    assert done.exit_code == 2
    assert done.stderr == f"facekit: {album}/sub/../b.jpg: this is an input; give the output another name\n"
    assert (album / "b.jpg").read_bytes() == before


def test_options_reach_the_analyzer(facekit, untrained, album):
    def run(*options):
        return facekit("predict", album / "b.jpg", "--json", "-", "--weights", untrained, *options)

    assert json.loads(run(*FLAGS, "--min-face", "41").stdout)[0]["faces"] == []
    assert len(json.loads(run(*FLAGS, "--min-face", "40").stdout)[0]["faces"]) == 1
    limited = run(*FLAGS, "--max-pixels", "100")
    assert limited.exit_code == 2
    assert "the limit is 100" in json.loads(limited.stdout)[0]["error"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--detector", "nonsense"], "unknown detector 'nonsense': expected auto, "),
        (["--device", "abacus"], "unknown device 'abacus'"),
        (["--backend", "nonsense"], "unknown backend 'nonsense': expected auto, torch"),
        (["--weights", "nonsense"], "no weights 'nonsense'"),
        (["--json", "-", "--csv", "-"], "--json and --csv cannot both"),
        (["--json", "/proc/nowhere/a.json", "--detector", "none"], "No such file"),
    ],
)
def test_wrong_settings_are_one_line_and_exit_2(facekit, untrained, album, options, message):
    weights = [] if "--weights" in options else ["--weights", untrained]
    done = facekit("predict", album / "b.jpg", *weights, *options)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert message in done.stderr
    assert done.stderr.startswith("facekit: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [[], ["a.jpg", "--nonsense"], ["a.jpg", "--batch-size", "0"], ["a.jpg", "--min-score", "2"]]
)
def test_wrong_usage_is_one_line_and_exit_2(facekit, arguments):
    done = facekit("predict", *arguments)
    assert done.exit_code == 2
    assert done.stderr.startswith("facekit: ")
    assert done.stderr.endswith("predict --help`\n")
    assert done.stderr.count("\n") == 1


def test_a_url_is_read(predict, album):
    import threading
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=album))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/sub/b.jpg"
        refused = predict(url, "--json", "-")
        assert refused.exit_code == 2
        assert "--allow-private" in refused.stderr
        done = predict(url, "--json", "-", "--allow-private", "--crops", album / "faces")
        assert done.exit_code == 0
        assert names(done.stdout) == [url]
        assert [path.name for path in (album / "faces").iterdir()] == ["b-0.jpg"]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_name_that_is_not_text_is_kept(predict, tmp_path, save_picture):
    odd = os.fsencode(tmp_path) + b"/\xff.png"
    os.rename(save_picture(tmp_path / "a.png"), odd)  # noqa: PTH104
    done = predict(tmp_path, "--json", "-", "--csv", tmp_path / "all.csv")
    assert done.exit_code == 0
    assert [os.fsencode(name) for name in names(done.stdout)] == [odd]
    assert odd in (tmp_path / "all.csv").read_bytes()
    assert predict(tmp_path).exit_code == 0


def test_memory_and_results_do_not_wait_for_the_last_picture(untrained, album, save_picture):
    """The first results are there before the last picture is: pictures go through batch by batch."""
    from facekit.analyzer import FaceAnalyzer
    from facekit_cli.predict import Input, analyse

    analyzer = FaceAnalyzer("cpu", "none", weights=str(untrained), batch_size=2)
    late = album / "late.png"
    inputs = [Input(str(path), str(path), path) for path in (album / "a.png", album / "b.jpg", late)]
    results = analyse(analyzer, inputs)
    assert next(results).error is None
    save_picture(late)
    assert [faces.error for faces in results] == [None, None]


@pytest.fixture(scope="module")
def astronaut(tmp_path_factory) -> Path:
    """NASA's portrait of Eileen Collins."""
    from skimage.data import astronaut

    path = tmp_path_factory.mktemp("portrait") / "astronaut.jpg"
    Image.fromarray(astronaut()).save(path, quality=95)
    return path


def test_the_shipped_weights_find_the_astronaut_and_that_she_is_happy(facekit, astronaut, tmp_path):
    done = facekit("predict", astronaut, "--json", "-", "--draw", tmp_path)
    assert done.exit_code == 0, done.stderr
    (one,) = json.loads(done.stdout)
    (face,) = one["faces"]
    assert face["expression"]["label"] == "happy"
    assert face["score"] > 0.5
    by_eye = {
        "left_eye_center": (247, 102),
        "right_eye_center": (203, 101),
        "nose_tip": (223, 126),
        "mouth_left_corner": (243, 140),
        "mouth_right_corner": (204, 141),
    }
    for name, place in by_eye.items():
        assert np.hypot(*np.subtract(face["keypoints"][name], place)) < 7, name
        assert 0 < face["sigma"][name] < 10
    drawn = np.asarray(Image.open(tmp_path / "astronaut.jpg")).astype(int)
    changed = np.abs(drawn - np.asarray(Image.open(astronaut))).max(-1) > 60
    rows, columns = np.nonzero(changed)
    x0, y0, _, y1 = face["box"]
    assert x0 - 3 <= columns.min() <= x0 + 3
    assert y0 - 30 <= rows.min() <= y0 + 3
    assert y1 - 4 <= rows.max() <= y1 + 3


@pytest.mark.data
def test_real_scenes_with_a_broken_file_among_them(facekit, data_folder, tmp_path):
    scenes = data_folder / "detection" / "afw_scenes"
    for path in sorted(scenes.glob("*.jpg"))[:4]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    broken = tmp_path / "0.jpg"
    broken.write_bytes(path.read_bytes()[:5000])
    model = data_folder / "detection" / "yunet_n_640_640.onnx"
    done = facekit("predict", tmp_path, "--json", "-", "--detector", "yunet", "--detector-model", model)
    assert done.exit_code == 1
    found = {Path(one["image"]).name: one for one in json.loads(done.stdout)}
    assert "cut off" in found.pop("0.jpg")["error"]
    for one in found.values():
        boxes = [face["box"] for face in one["faces"]]
        assert boxes
        areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes]
        assert areas == sorted(areas, reverse=True)
        for face in one["faces"]:
            x0, y0, x1, y1 = face["box"]
            x, y = face["keypoints"]["nose_tip"]
            assert x0 - 10 < x < x1 + 10
            assert y0 - 10 < y < y1 + 10
