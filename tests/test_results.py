from __future__ import annotations

import dataclasses
import json
import pickle

import numpy as np
import pytest

from facekit import geometry
from facekit.errors import ImageError
from facekit.images import to_gray
from facekit.results import COLUMNS, Expression, Face, Faces, Keypoints
from facekit.schema import EXPRESSIONS, KEYPOINTS


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)


def made_face(picture: np.ndarray, seed: int = 0, box: tuple[float, ...] = (10.2, 5.7, 50.9, 46.4)) -> Face:
    rng = np.random.default_rng(seed)
    scores = rng.random(7)
    return Face(
        box=np.array(box, np.float32),
        score=0.98765,
        keypoints=Keypoints(
            rng.random((15, 2)).astype(np.float32) * 40 + 10, rng.random(15).astype(np.float32) + 0.5
        ),
        expression=Expression.from_scores((scores / scores.sum()).astype(np.float32)),
        image=picture,
        image_from_aligned=geometry.crop(np.array([10.0, 5.0, 50.0, 45.0]), 48),
    )


@pytest.fixture
def faces(picture) -> Faces:
    made = tuple(made_face(picture, seed) for seed in range(3))
    return Faces(made, image=picture, weights="default-v1").named("a/b.jpg")


def test_keypoints_are_had_by_name(faces):
    keypoints = faces[0].keypoints
    for place, name in enumerate(KEYPOINTS):
        assert np.array_equal(keypoints[name], keypoints.xy[place])
    with pytest.raises(KeyError, match=r"unknown keypoint 'nose': expected one of .*nose_tip"):
        keypoints["nose"]


def test_an_expression_is_the_most_probable_of_fer2013s_seven():
    scores = np.array([0.1, 0.05, 0.05, 0.6, 0.1, 0.05, 0.05], np.float32)
    expression = Expression.from_scores(scores)
    assert expression.label == "happy"
    assert expression.confidence == expression.scores["happy"] == pytest.approx(0.6)
    assert tuple(expression.scores) == EXPRESSIONS
    assert sum(expression.scores.values()) == pytest.approx(1, abs=1e-6)


def test_a_crop_is_the_picture_inside_the_box(picture):
    face = made_face(picture, box=(10.0, 5.0, 50.0, 46.0))
    assert np.array_equal(face.crop(), picture[5:46, 10:50])
    face.crop()[:] = 0
    assert picture.any()


@pytest.mark.parametrize(
    ("box", "shape"),
    [
        ((-20, -10, 30, 40), (40, 30)),
        ((100, 60, 300, 300), (20, 20)),
        ((-50, -50, 500, 500), (80, 120)),
        ((30.2, 30.2, 30.3, 30.3), (1, 1)),
        ((200, 200, 250, 250), (1, 1)),
        ((-9, -9, -2, -2), (1, 1)),
    ],
)
def test_a_crop_ends_at_the_picture_and_is_never_empty(picture, box, shape):
    assert made_face(picture, box=box).crop().shape == (*shape, 3)


def test_the_aligned_picture_is_what_the_matrix_cuts(picture):
    face = made_face(picture)
    expected = geometry.warp_picture(to_gray(picture), face.image_from_aligned, 48)
    assert face.aligned().dtype == np.uint8
    assert np.array_equal(face.aligned(), expected)


def test_the_dict_is_the_object_of_the_command_line(faces):
    found = faces.to_dict()
    assert list(found) == ["image", "width", "height", "weights", "error", "faces"]
    assert (found["image"], found["width"], found["height"]) == ("a/b.jpg", 120, 80)
    assert (found["weights"], found["error"], len(found["faces"])) == ("default-v1", None, 3)
    for face, one in zip(faces, found["faces"], strict=True):
        assert list(one) == ["box", "score", "keypoints", "sigma", "expression"]
        assert one["box"] == pytest.approx(face.box, abs=0.006)
        assert one["score"] == pytest.approx(face.score, abs=1e-4)
        assert tuple(one["keypoints"]) == tuple(one["sigma"]) == KEYPOINTS
        assert list(one["keypoints"].values()) == pytest.approx(face.keypoints.xy, abs=0.006)
        assert list(one["sigma"].values()) == pytest.approx(face.keypoints.sigma, abs=6e-4)
        assert list(one["expression"]) == ["label", "confidence", "scores"]
        scores = one["expression"]["scores"]
        assert tuple(scores) == EXPRESSIONS
        assert sum(scores.values()) == pytest.approx(1, abs=1e-5)
        assert one["expression"]["confidence"] == scores[one["expression"]["label"]] == max(scores.values())


def test_json_is_the_dict_and_holds_plain_numbers_only(faces):
    text = faces.to_json()
    assert json.loads(text) == faces.to_dict()
    assert "\n" not in text
    nan = dataclasses.replace(faces[0], score=float("nan"))
    with pytest.raises(ValueError, match="JSON compliant"):
        Faces((nan,), faces.image, "w").to_json()


def test_a_failed_picture_is_empty_and_says_why():
    failed = Faces.failed("a.jpg", "default-v1", "a.jpg: cut off\n  in the middle")
    assert len(failed) == 0
    assert not failed
    assert failed.to_dict() == {
        "image": "a.jpg",
        "width": None,
        "height": None,
        "weights": "default-v1",
        "error": "a.jpg: cut off in the middle",
        "faces": [],
    }
    with pytest.raises(ImageError, match="cut off"):
        failed.draw()


def test_faces_are_a_sequence(faces):
    assert len(faces) == 3
    assert list(faces) == [faces[0], faces[1], faces[2]]
    assert faces[-1] is faces[2]
    assert faces[1] in faces
    two = faces[:2]
    assert isinstance(two, Faces)
    assert (list(two), two.name, two.width) == ([faces[0], faces[1]], "a/b.jpg", 120)


def test_a_frame_has_a_row_a_face(faces):
    frame = faces.to_frame()
    assert tuple(frame.columns) == COLUMNS
    assert list(frame["face"]) == [0, 1, 2]
    row, face = frame.iloc[1], faces.to_dict()["faces"][1]
    assert list(row[["x0", "y0", "x1", "y1"]]) == face["box"]
    assert [row["nose_tip_x"], row["nose_tip_y"]] == face["keypoints"]["nose_tip"]
    assert row["nose_tip_sigma"] == face["sigma"]["nose_tip"]
    assert dict(row[list(EXPRESSIONS)]) == face["expression"]["scores"]
    assert row["expression"] == face["expression"]["label"]
    assert row["confidence"] == face["expression"]["confidence"]
    empty = Faces((), faces.image, "w").to_frame()
    assert (len(empty), tuple(empty.columns)) == (0, COLUMNS)


def test_a_row_without_a_face_has_all_columns():
    row = dict(zip(COLUMNS, Faces.failed("a.jpg", "w", "broken").to_empty_row(), strict=True))
    assert (row["image"], row["weights"], row["error"]) == ("a.jpg", "w", "broken")
    assert row["face"] is row["x0"] is row["happy"] is None


def test_drawing_leaves_the_picture_alone(faces, picture):
    before = picture.copy()
    drawn = faces.draw()
    assert (drawn.shape, drawn.dtype) == (picture.shape, np.uint8)
    assert not np.array_equal(drawn, picture)
    assert np.array_equal(picture, before)
    assert np.array_equal(Faces((), picture, "w").draw(), picture)


def test_pixels_can_be_read_again_instead_of_kept(faces, picture):
    reads = []

    def read() -> np.ndarray:
        reads.append(1)
        return picture

    light = faces.rereading(read)
    assert light.to_dict() == faces.to_dict()
    assert (light.width, light.height, reads) == (120, 80, [])
    assert np.array_equal(light[0].crop(), faces[0].crop())
    assert np.array_equal(light[1].aligned(), faces[1].aligned())
    assert np.array_equal(light.draw(), faces.draw())
    assert len(reads) == 3
    assert len(pickle.dumps(faces.rereading(len))) < len(pickle.dumps(faces)) / 3


def test_results_cannot_be_changed(faces):
    for thing, name in ((faces, "name"), (faces[0], "score"), (faces[0].expression, "label")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, name, "other")


def test_what_a_notebook_shows_is_short(faces):
    assert repr(faces).startswith("Faces(a/b.jpg, 120x80, [Face(")
    assert len(repr(faces[0])) < 80
    assert repr(Faces.failed("a.jpg", "w", "broken")) == "Faces(a.jpg, NonexNone, error 'broken')"
