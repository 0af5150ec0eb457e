from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from facekit import ConfigError, FaceAnalyzer, ImageError, analyze
from facekit.analyzer import FaceAnalyzer as Analyzer
from facekit.images import find_pictures, read_image
from facekit.mirror import mirror_image, mirror_points


@pytest.fixture(scope="module")
def analyzer() -> Analyzer:
    return FaceAnalyzer(device="cpu", precision="fp32")


def mirrored(picture: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(mirror_image(picture.transpose(2, 0, 1)).transpose(1, 2, 0))


def test_the_astronaut_smiles_and_her_points_are_where_one_sees_them(analyzer):
    faces = analyzer(astronaut())
    assert len(faces) == 1
    face = faces[0]
    assert face.expression.label == "happy"
    assert face.expression.confidence > 0.6
    assert sum(face.expression.scores.values()) == pytest.approx(1, abs=1e-5)
    # Read off the picture by eye, to within a few pixels.
    seen = {
        "left_eye_center": (246, 104),
        "right_eye_center": (203, 102),
        "nose_tip": (223, 127),
        "mouth_left_corner": (243, 138),
        "mouth_right_corner": (204, 138),
    }
    for name, place in seen.items():
        assert np.abs(face.keypoints[name] - place).max() < 6, name
    assert face.aligned().shape == (48, 48)
    assert face.crop().shape[2] == 3


def test_a_batch_gives_what_single_pictures_give(analyzer):
    picture = astronaut()
    batch = [picture[:, 40:], picture[:300], picture, np.zeros((80, 60, 3), np.uint8), mirrored(picture)]
    together = analyzer(batch)
    assert [len(faces) for faces in together] == [1, 1, 1, 0, 1]
    for faces, single in zip(together, map(analyzer, batch), strict=True):
        for one, other in zip(faces, single, strict=True):
            np.testing.assert_allclose(one.keypoints.xy, other.keypoints.xy, atol=0.05)
            ours, theirs = (list(face.expression.scores.values()) for face in (one, other))
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.data
def test_a_batch_of_scenes_gives_what_single_scenes_give(analyzer, data_folder):
    paths = find_pictures(data_folder / "detection" / "afw_scenes")[::24]
    together = analyzer(paths)
    assert sum(map(len, together)) >= len(paths)
    for faces, path in zip(together, paths, strict=True):
        single = analyzer(path)
        assert len(faces) == len(single)
        for one, other in zip(faces, single, strict=True):
            np.testing.assert_allclose(one.keypoints.xy, other.keypoints.xy, atol=0.05)
            assert one.expression.confidence == pytest.approx(other.expression.confidence, abs=1e-4)


@pytest.mark.data
def test_the_mirrored_picture_gives_mirrored_points_with_swapped_names(analyzer, data_folder):
    differences = []
    for path in find_pictures(data_folder / "landmarks68" / "helen_train")[:300:10]:
        picture = read_image(path)
        plain, reflected = analyzer(picture), analyzer(mirrored(picture))
        if len(plain) and len(reflected):
            xy = plain[0].keypoints.xy
            back = mirror_points(reflected[0].keypoints.xy, picture.shape[1])
            eyes = np.linalg.norm(xy[0] - xy[1])
            differences.append(np.linalg.norm(xy - back, axis=1).mean() / eyes)
    assert len(differences) > 20
    assert np.median(differences) < 0.02


def test_bf16_stays_near_fp32(analyzer):
    rough = FaceAnalyzer(device="cpu", precision="bf16")(astronaut())[0]
    exact = analyzer(astronaut())[0]
    assert np.abs(rough.keypoints.xy - exact.keypoints.xy).max() < 1.0
    assert rough.expression.confidence == pytest.approx(exact.expression.confidence, abs=0.03)


def test_threads_may_share_an_analyzer(analyzer):
    pictures = [astronaut(), mirrored(astronaut())] * 4
    alone = [analyzer(picture) for picture in pictures[:2]] * 4
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(analyzer, pictures))
    for ours, theirs in zip(together, alone, strict=True):
        np.testing.assert_allclose(ours[0].keypoints.xy, theirs[0].keypoints.xy, atol=0.05)


def test_in_a_list_a_bad_input_keeps_its_place(analyzer, tmp_path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.jpg"
    Image.fromarray(astronaut()).save(good)
    bad.write_text("not a picture")
    first, second, third, fourth = analyzer([good, bad, tmp_path / "missing.jpg", np.full((9, 9, 3), np.nan)])
    assert (len(first), first.error) == (1, None)
    for faces, told in ((second, "bad.jpg"), (third, "missing.jpg"), (fourth, "NaN")):
        assert len(faces) == 0
        assert told.lower() in faces.error.lower()
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        analyzer(bad)


def test_a_list_of_files_does_not_hold_their_pictures(analyzer, tmp_path):
    path = tmp_path / "portrait.png"
    Image.fromarray(astronaut()).save(path)
    (listed,), alone = analyzer([path]), analyzer(path)
    assert callable(listed.image)
    assert not callable(alone.image)
    np.testing.assert_array_equal(listed.draw(), alone.draw())
    np.testing.assert_array_equal(listed[0].aligned(), alone[0].aligned())


def test_one_input_gives_faces_and_many_give_a_list_in_any_form(analyzer):
    picture = astronaut()
    assert len(analyzer(picture)) == 1
    for many in ([picture] * 2, (picture, picture), (p for p in [picture] * 2), np.stack([picture] * 2)):
        assert [len(faces) for faces in analyzer(many)] == [1, 1]
    assert analyzer([]) == []
    bgr = np.ascontiguousarray(picture[..., ::-1])
    assert analyzer(bgr, color="bgr")[0].expression.scores == analyzer(picture)[0].expression.scores


def test_settings_choose_among_the_faces():
    two = np.concatenate([astronaut(), astronaut()], 1)
    assert len(FaceAnalyzer(device="cpu")(two)) == 2
    assert len(FaceAnalyzer(device="cpu", max_faces=1)(two)) == 1
    assert len(FaceAnalyzer(device="cpu", min_face=300)(two)) == 0
    whole = FaceAnalyzer(device="cpu", detector="none")(astronaut()[60:180, 165:285])
    assert [face.expression.label for face in whole] == ["happy"]


@pytest.mark.parametrize(
    "setting",
    [{"device": "toaster"}, {"precision": "fp8"}, {"device": "cuda:99"}],
)
def test_unknown_settings_are_refused(setting):
    with pytest.raises(ConfigError):
        FaceAnalyzer(**setting)


@pytest.mark.parametrize(
    "setting", [{"batch_size": 0}, {"batch_size": -1}, {"max_faces": 0}, {"max_faces": -1}]
)
def test_settings_that_would_lose_pictures_or_faces_are_refused(setting):
    with pytest.raises(ConfigError, match="expected at least 1"):
        FaceAnalyzer(device="cpu", **setting)


def test_analyze_is_the_default_analyzer():
    assert analyze(astronaut())[0].expression.label == "happy"


def test_faces_too_near_the_border_or_tiny_do_not_crash(analyzer):
    face = astronaut()[60:180, 165:285]
    for picture in (face, face[::6, ::6], np.zeros((1, 1, 3), np.uint8), np.zeros((2, 900, 3), np.uint8)):
        for found in analyzer(picture):
            assert np.isfinite(found.keypoints.xy).all()


def test_the_pipeline_loads_no_pandas():
    code = "import sys; from facekit import FaceAnalyzer; FaceAnalyzer; assert 'pandas' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
