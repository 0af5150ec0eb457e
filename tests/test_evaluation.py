from __future__ import annotations

import json

import made
import numpy as np
import pytest
from PIL import Image

from facekit import evaluation, predictions
from facekit.alignment import align
from facekit.analyzer import FaceAnalyzer
from facekit.data import reading
from facekit.data.catalog import load_dataset
from facekit.data.files import strings
from facekit.detection import Detections, make_detector
from facekit.errors import ConfigError, DatasetError, ImageError
from facekit.evaluation import evaluate
from facekit.mirror import mirror_image, mirror_points
from facekit.schema import EXPRESSIONS


@pytest.fixture(scope="module")
def analyzer(tmp_path_factory):
    return FaceAnalyzer(
        device="cpu",
        detector="none",
        precision="fp32",
        weights=made.weights(tmp_path_factory.mktemp("weights")),
    )


def test_class_folders_are_counted_as_the_contract_says(tmp_path, analyzer):
    folder = made.class_folders(tmp_path / "set", {"happy": 4, "sad": 3, "contempt": 2})
    (folder / "sad" / "broken.png").write_bytes(b"no picture")
    found = evaluate(folder, analyzer=analyzer)
    told = json.loads(found.to_json())
    assert told["n"] == 9
    assert told["format"] == "class_folders"
    assert told["weights"] == "untrained-0"
    assert told["keypoints"] is None
    assert told["expression"]["n"] == 7
    assert told["expression"]["other_labels"] == {"contempt": 2}
    assert np.sum(told["expression"]["confusion"]) == 7
    (skipped,) = told["skipped"]
    assert skipped["source"] == "sad/broken.png"
    assert "broken.png" in skipped["reason"]
    with pytest.raises(DatasetError, match=r"broken\.png"):
        evaluate(folder, analyzer=analyzer, strict=True)


def test_figures_are_those_of_the_predictions_of_the_analyzer(tmp_path, analyzer):
    folder = made.class_folders(tmp_path / "set", {"happy": 4, "sad": 3})
    found = evaluate(folder, analyzer=analyzer).to_frame()
    for _, row in found.iterrows():
        (face,) = analyzer(folder / row["source"])
        assert row["predicted"] == face.expression.label
        assert row["confidence"] == pytest.approx(face.expression.confidence, abs=1e-4)
        assert row["nose_tip_x"] == pytest.approx(face.keypoints["nose_tip"][0], abs=0.05)


@pytest.mark.parametrize("tta", [False, True])
def test_fer2013_faces_are_seen_as_they_are_and_half_way_to_their_frame(analyzer, tta):
    dataset = made.expression_set(
        ["happy", "sad"], fer2013_frame=True, load=lambda place: made.picture(place, 48)
    )
    found = evaluate(dataset, analyzer=analyzer, tta=tta).predictions
    grays = [made.picture(k, 48) for k in (0, 1)]
    as_they_are = np.tile(np.eye(2, 3), (2, 1, 1))
    halves = (as_they_are + align(found.points, analyzer.backend.header["frame"])) / 2
    told = []
    for image_from_crop in (as_they_are, halves):
        crops = analyzer.backend.warp(grays, np.arange(2), image_from_crop, 48)
        for seen in (crops, np.ascontiguousarray(crops[..., ::-1])) if tta else (crops,):
            logits = analyzer.backend.expression(seen, ["fer2013"])["fer2013"] / 0.2
            told.append(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
        if image_from_crop is as_they_are:
            np.testing.assert_array_equal(np.asarray(crops[:, 0]) * 255, np.stack(grays))
    np.testing.assert_allclose(found.scores, np.mean(told, 0), atol=1e-6)
    assert np.abs(told[0] - told[-1]).max() > 1e-3


def test_photos_alone_get_the_bias_of_photos(analyzer, monkeypatch):
    biased = analyzer.backend.header["photo_bias"]
    assert list(biased) == ["fer2013"]
    for framed in (False, True):
        dataset = made.expression_set(
            ["happy", "sad"], fer2013_frame=framed, load=lambda place: made.picture(place, 48)
        )
        found = {}
        for bias in (biased, {}):
            monkeypatch.setitem(analyzer.backend.header, "photo_bias", bias)
            for head in ("fer2013", "ferplus"):
                found[head, bool(bias)] = evaluate(dataset, analyzer=analyzer, head=head).predictions.scores
        np.testing.assert_array_equal(found["ferplus", True], found["ferplus", False])
        expected = found["fer2013", False] * (1 if framed else np.exp(biased["fer2013"]))
        expected /= expected.sum(1, keepdims=True)
        np.testing.assert_allclose(found["fer2013", True], expected, atol=1e-6)


def test_analyses_answer_of_pictures_of_fer2013s_size_as_evaluations_do(analyzer):
    dataset = made.expression_set(
        ["happy", "sad"], fer2013_frame=True, load=lambda place: made.picture(place, 48)
    )
    expected = evaluate(dataset, analyzer=analyzer).predictions.scores
    large = made.picture(2, 96)
    (first,), (other,), (second,) = analyzer([made.picture(0, 48), large, made.picture(1, 48)])
    for face, scores in zip((first, second), expected, strict=True):
        assert list(face.expression.scores.values()) == pytest.approx(scores, abs=1e-5)
    (alone,) = analyzer(large)
    assert other.expression.scores == pytest.approx(alone.expression.scores, abs=1e-6)


def test_batches_and_reading_ahead_change_nothing(analyzer, monkeypatch):
    dataset = made.expression_set(["happy", "sad", "fear"] * 30)
    together = evaluate(dataset, analyzer=analyzer).predictions
    monkeypatch.setattr(predictions, "BATCH", 7)
    monkeypatch.setattr(reading, "READ_AHEAD", 1)
    apart = evaluate(dataset, analyzer=analyzer).predictions
    np.testing.assert_allclose(together.scores, apart.scores, atol=1e-3)  # the made temperature is sharp
    np.testing.assert_allclose(together.points, apart.points, atol=0.05)
    np.testing.assert_array_equal(together.hashes, apart.hashes)


def test_mirroring_every_picture_and_label_leaves_tta_figures_unchanged(analyzer):
    faces = made.point_set(12, labels=strings(EXPRESSIONS[k % 7] for k in range(12)))
    mirrored = made.made_set(
        12,
        load=lambda place: mirror_image(faces.load(place)),
        points=mirror_points(faces.points, 120),
        labels=faces.labels,
    )
    plain, flipped = (evaluate(dataset, analyzer=analyzer, tta=True) for dataset in (faces, mirrored))
    for task in ("expression", "keypoints"):
        for name, value in getattr(plain, task).to_dict().items():
            if isinstance(value, float):
                assert getattr(getattr(flipped, task), name) == pytest.approx(value, abs=1e-3), name
    once = evaluate(faces, analyzer=analyzer)
    assert once.expression.nll != pytest.approx(plain.expression.nll, abs=1e-6)


def test_predictions_read_back_as_labels_fit_exactly(tmp_path, analyzer):
    for k in range(6):
        Image.fromarray(made.picture(k, 90)).resize((120 + 9 * k, 130)).save(tmp_path / f"{k}.png")
    analysed = analyzer([tmp_path / f"{k}.png" for k in range(6)])
    (tmp_path / "labels.json").write_text(json.dumps([faces.to_dict() for faces in analysed]))
    for boxes in ("labels", "detector"):
        found = evaluate(tmp_path / "labels.json", analyzer=analyzer, boxes=boxes)
        assert found.expression.n == found.keypoints.n == 6
        assert found.expression.accuracy == 1
        # JSON rounds to 0.01 px, and this untrained network sees the eyes a few pixels apart.
        assert found.keypoints.nme == pytest.approx(0, abs=5e-3)


class TwoFaces:
    """Sees one large face on the right and a small one on the left of every picture but the darkest."""

    name = "two"
    face_from_box = make_detector("none").face_from_box

    def __call__(self, images):
        both = Detections(
            np.array([[60, 20, 119, 79], [5, 5, 35, 35]], np.float32), np.array([0.9, 0.8], np.float32)
        )
        none = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
        return [both if image.any() else none for image in images]


def test_a_detector_gives_the_largest_face_or_that_of_the_label(analyzer, monkeypatch):
    monkeypatch.setattr(analyzer, "detector", TwoFaces())
    black = lambda place: made.picture(place, 120) * (place > 0)  # noqa: E731
    points = made.point_set(3).points * 0.3  # around (18, 18)
    labels = strings(["happy"] * 3)
    pointed = evaluate(made.made_set(3, load=black, points=points), analyzer=analyzer, boxes="detector")
    np.testing.assert_array_equal(pointed.predictions.boxes[1:], [[5, 5, 35, 35]] * 2)
    assert pointed.keypoints.undetected == 1
    assert pointed.keypoints.failure_rate_08 >= 1 / 3
    named = evaluate(made.made_set(3, load=black, labels=labels), analyzer=analyzer, boxes="detector")
    np.testing.assert_array_equal(named.predictions.boxes[1:], [[60, 20, 119, 79]] * 2)
    assert (named.expression.n, named.expression.undetected) == (3, 1)
    far = evaluate(made.made_set(3, load=black, points=points + 300), analyzer=analyzer, boxes="detector")
    assert far.keypoints.undetected == 3


def test_boxes_default_by_what_the_dataset_is(analyzer):
    assert evaluation.default_boxes(made.expression_set(["happy"])) == "labels"
    assert evaluation.default_boxes(made.expression_set(["happy"], whole_pictures=True)) == "detector"
    assert evaluation.default_boxes(made.point_set(1, whole_pictures=True)) == "labels"
    boxed = made.expression_set(["happy"], whole_pictures=True, boxes=np.zeros((1, 4), np.float32))
    assert evaluation.default_boxes(boxed) == "labels"


def test_root_mean_square_is_in_pixels_of_the_crop_or_of_kaggles_picture(analyzer):
    ordinary, kaggle = (
        evaluate(made.point_set(5, format=format), analyzer=analyzer)
        for format in ("pts", "kaggle_keypoints")
    )
    points, predicted = ordinary.dataset.points, ordinary.predictions.points
    squares = ((points - predicted) ** 2).mean((1, 2))
    sides = np.ptp(points, 1).max(1) + 0  # the tight box's longer side, from centre to centre
    sides = (sides) * 1.6
    assert ordinary.keypoints.rmse_96 == pytest.approx(
        np.sqrt((squares * (96 / sides) ** 2).mean()), rel=1e-4
    )
    assert kaggle.keypoints.rmse_96 == pytest.approx(np.sqrt(squares.mean()) * 96 / 120, rel=1e-4)


def test_faces_with_too_few_points_are_framed_by_the_whole_picture(analyzer):
    dataset = made.point_set(3)
    dataset.points[0, 1:] = np.nan
    dataset.points[1] = np.nan
    found = evaluate(dataset, analyzer=analyzer)
    assert found.keypoints.n == 2
    assert found.keypoints.n_normalized == 1
    assert not np.isnan(found.predictions.points).any()


def test_a_choice_of_rows_follows_the_seed_and_keeps_their_order(analyzer):
    dataset = made.expression_set(["happy"] * 50)
    first, again, other = (evaluation.choose_samples(dataset, limit=10, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.rows, again.rows)
    assert (np.diff(first.rows) > 0).all()
    assert not np.array_equal(first.rows, other.rows)
    with pytest.raises(ConfigError, match="limit"):
        evaluation.choose_samples(dataset, limit=0)


def test_heads_with_other_classes_are_brought_to_the_seven(analyzer):
    dataset = made.expression_set(
        ["happy", "sad"], load=lambda place: made.picture(place, 48), fer2013_frame=True
    )
    found = evaluate(dataset, analyzer=analyzer, head="ferplus").predictions.scores
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    assert not np.allclose(found, evaluate(dataset, analyzer=analyzer).predictions.scores)
    with pytest.raises(ConfigError, match="ferplus"):
        evaluate(dataset, analyzer=analyzer, head="nonesuch")


def test_progress_ends_at_the_number_of_samples(analyzer):
    told = []
    evaluate(made.expression_set(["happy"] * 70), analyzer=analyzer, progress=lambda *step: told.append(step))
    assert told == [(64, 70), (70, 70)]


def test_figures_are_drawn_for_what_has_labels(analyzer):
    expressions = evaluate(made.expression_set(["happy", "sad"] * 5), analyzer=analyzer)
    points = evaluate(made.point_set(5), analyzer=analyzer)
    assert expressions.plot_confusion().axes
    assert expressions.plot_reliability().axes
    assert points.plot_ced().axes
    with pytest.raises(DatasetError, match="no keypoints"):
        expressions.plot_ced()
    with pytest.raises(DatasetError, match="no expression labels"):
        points.plot_confusion()


def test_unreadable_pictures_are_told_with_their_row(analyzer):
    def load(place):
        if place == 1:
            raise ImageError("it is damaged")
        return made.picture(place)

    dataset = made.expression_set(["happy"] * 3, load=load, rows=np.array([5, 8, 9]))
    found = evaluate(dataset, analyzer=analyzer)
    assert [(row.row, row.source, row.reason) for row in found.skipped] == [(8, "001.png", "it is damaged")]
    assert found.to_frame()["index"].tolist() == [5, 9]


@pytest.mark.data
def test_real_sets_are_read_and_measured(data_folder, analyzer):
    raf = evaluate(data_folder / "raf_db", analyzer=analyzer, limit=20)
    assert raf.expression.n == 20
    helen = evaluate(load_dataset(data_folder / "landmarks68" / "helen_train"), analyzer=analyzer, limit=10)
    assert helen.keypoints.n == helen.keypoints.n_normalized == 10
    muxspace = evaluate(data_folder / "muxspace", analyzer=analyzer, limit=5)
    assert muxspace.boxes == "detector"
