from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import made
import numpy as np
import pytest
from PIL import Image

from facekit import crosschecking, evaluation, report
from facekit.analyzer import FaceAnalyzer
from facekit.crosschecking import crosscheck
from facekit.data.catalog import load_dataset
from facekit.data.files import strings
from facekit.errors import DatasetError, ImageError
from facekit.evaluation import evaluate
from facekit.journal import Journal
from facekit.mirror import swap_sides
from facekit.predictions import Predictor
from facekit.schema import EXPRESSIONS
from facekit.suspects import SWAPPED

LABELS = {"happy": 40, "sad": 30, "neutral": 20, "contempt": 2}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return made.weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def analyzer(weights):
    return FaceAnalyzer(device="cpu", detector="none", precision="fp32", weights=weights)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made.class_folders(tmp_path_factory.mktemp("data") / "set", LABELS)


def checked(dataset, found, analyzer):
    """Give the cross-check of predictions that are given."""
    predictor = Predictor(analyzer, "labels")
    measured = evaluation.measure(dataset, found, predictor, "made", None, 0)
    return measured, crosschecking._suspects(measured)


def test_summary_is_the_evaluation_with_suspects_and_faults(folder, analyzer, tmp_path):
    result = crosscheck(folder, analyzer=analyzer, out=tmp_path)
    told = json.loads(result.to_json())
    plain = evaluate(folder, analyzer=analyzer).to_dict()
    assert {name: told[name] for name in plain} == json.loads(json.dumps(plain))
    assert told["suspects"]["n"] == 92
    assert 0 < told["suspects"]["flagged"] < 92
    assert told["faults"]["duplicates"] == {
        "n": 0,
        "rows": [],
        "copies": [],
        "surplus": 0,
        "groups": 0,
        "conflicting_groups": 0,
    }
    assert told["faults"]["unreadable"] == {"n": 0, "rows": []}
    assert told["seen_in_training"] is None
    assert told["reference"] is None


def test_suspects_hold_every_label_scored_by_the_head_of_the_votes(folder, analyzer):
    result = crosscheck(folder, analyzer=analyzer)
    table = result.to_frame()
    heads = [evaluate(folder, analyzer=analyzer, head=head).predictions.scores for head in made.HEADS]
    np.testing.assert_allclose(result.evaluation.predictions.second, heads[1], atol=1e-6)
    assert table["rank"].tolist() == list(range(1, 93))
    assert sorted(table["index"]) == list(range(92))
    assert table["score"].is_monotonic_decreasing
    assert table["score"].between(0, 1).all()
    rows = result.evaluation.to_frame().set_index("index")
    for _, row in table[table["label"] != "contempt"].iterrows():
        sample = rows.loc[row["index"]]
        of_label = heads[1][row["index"], EXPRESSIONS.index(row["label"])]
        assert row["score"] == pytest.approx(1 - of_label, abs=1e-5)
        assert (row["predicted"], row["source"]) == (sample["predicted"], sample["source"])
        assert row["confidence"] == pytest.approx(sample["confidence"])
    others = table[table["label"] == "contempt"]
    assert (others["score"] == 0).all()
    assert (others["pattern"] == crosschecking.OTHER_LABEL).all()


def test_an_interrupted_run_goes_on_to_the_same_result(folder, analyzer, tmp_path):
    whole = crosscheck(folder, analyzer=analyzer, out=tmp_path / "whole")

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crosscheck(folder, analyzer=analyzer, out=tmp_path / "cut", progress=stop)
    file = tmp_path / "cut" / "predictions.jsonl"
    assert len(file.read_bytes().splitlines()) == 64
    with file.open("ab") as stream:  # as if the power had failed in the middle of a line
        stream.write(b'{"index": 64, "sour')
    told = []
    resumed = crosscheck(
        folder, analyzer=analyzer, out=tmp_path / "cut", progress=lambda *step: told.append(step)
    )
    assert told == [(92, 92)]
    assert resumed.to_json() == whole.to_json()
    assert file.read_bytes() == (tmp_path / "whole" / "predictions.jsonl").read_bytes()
    np.testing.assert_array_equal(resumed.evaluation.predictions.scores, whole.evaluation.predictions.scores)


def test_a_head_that_is_named_is_asked_alone(folder, analyzer):
    result = crosscheck(folder, analyzer=analyzer, head="ferplus", limit=10)
    assert np.isnan(result.evaluation.predictions.second).all()
    assert result.evaluation.head == "ferplus"


def test_only_the_same_run_goes_on(folder, analyzer, tmp_path):
    def last_done(**options):
        told = []
        crosscheck(
            folder,
            **({"analyzer": analyzer} | options),
            out=tmp_path,
            progress=lambda *step: told.append(step),
        )
        return told

    assert len(last_done()) == 2
    assert last_done() == []
    assert len(last_done(tta=True)) == 2
    other = FaceAnalyzer(device="cpu", detector="none", weights=made.weights(tmp_path, seed=1))
    assert len(last_done(analyzer=other)) == 2
    (tmp_path / "summary.json").write_text("{}")
    assert len(last_done(analyzer=other)) == 2
    assert not (tmp_path / "summary.json").exists()


@pytest.mark.parametrize("before", [made.picture(200), None])
def test_a_picture_that_was_replaced_or_mended_is_looked_at_again(before, analyzer, tmp_path):
    folder = made.class_folders(tmp_path / "set", {"happy": 3, "sad": 3})
    file = folder / "happy" / "001.png"
    mended = file.read_bytes()
    if before is None:
        file.write_bytes(mended[:100])
    else:
        Image.fromarray(before).save(file)
    crosscheck(folder, analyzer=analyzer, out=tmp_path / "out")
    file.write_bytes(mended)
    again = crosscheck(folder, analyzer=analyzer, out=tmp_path / "out")
    assert again.to_json() == crosscheck(folder, analyzer=analyzer).to_json()


def test_a_run_is_told_by_all_that_its_predictions_depend_on(folder, weights, tmp_path):
    def run(dataset, **options):
        analyzer = FaceAnalyzer(device="cpu", **options)
        return Journal(tmp_path, dataset, Predictor(analyzer, "detector")).run

    labelled = load_dataset(folder)
    relabelled = replace(labelled, labels=labelled.labels[::-1])
    small = {"weights": weights, "precision": "fp32"}
    runs = [
        run(labelled, backend="onnx", precision="fp32"),
        run(labelled, backend="onnx", precision="int8"),
        run(labelled, backend="onnx", precision="fp32", min_score=0.3),
        run(labelled, backend="torch", **small),
        run(labelled, backend="torch", weights=weights, precision="bf16"),
        run(labelled, backend="onnx", **small),
        run(labelled, backend="onnx", **small, detector="haar"),
        run(relabelled, backend="onnx", **small),
    ]
    assert len(set(runs)) == len(runs)
    assert run(labelled, backend="onnx", **small) == runs[5]


def test_unreadable_pictures_are_kept_through_an_interruption(analyzer, tmp_path):
    def load(place):
        if place == 3:
            raise ImageError("damaged")
        return made.picture(place)

    dataset = made.expression_set(["happy", "sad"] * 10, load=load)
    first = crosscheck(dataset, analyzer=analyzer, out=tmp_path)
    again = crosscheck(dataset, analyzer=analyzer, out=tmp_path)
    assert first.to_json() == again.to_json()
    assert [row.row for row in again.evaluation.skipped] == [3]
    assert again.faults["unreadable"] == {"n": 1, "rows": [3]}


def test_keypoints_of_a_point_set_are_suspected(analyzer):
    dataset = made.point_set(60)
    predicted = dataset.points + np.random.default_rng(0).normal(0, 0.5, dataset.points.shape)
    dataset.points[7] += 15
    found = made.predictions_of(dataset, points=predicted)
    found.box_scores[9] = np.nan
    found.points[9], found.scores[9] = np.nan, np.nan
    _, suspected = checked(dataset, found, analyzer)
    assert suspected.places[0] == 7
    assert suspected.patterns[0] == "shifted"
    assert suspected.flagged.sum() == 1
    assert (suspected.places[-1], suspected.scores[-1]) == (9, 0)
    assert suspected.patterns[-1] == crosschecking.UNDETECTED
    assert np.isnan(suspected.confidence[-1])
    assert ((suspected.confidence[:-1] > 0) & (suspected.confidence[:-1] < 1)).all()


def test_suspects_are_judged_by_the_votes_of_their_rows(analyzer):
    labels = np.random.default_rng(0).integers(0, 7, 200)
    votes = np.zeros((200, 10), np.uint8)
    votes[:, 1] = 9  # all happy
    dataset = made.expression_set([EXPRESSIONS[k] for k in labels], votes=votes)
    found = made.predictions_of(dataset, scores=np.eye(7)[np.full(200, 3)] * 0.9 + 0.1 / 7)
    judged = crosschecking._judge(*checked(dataset, found, analyzer))
    assert judged.n == 200
    assert judged.pooled_auroc == 1
    with pytest.raises(DatasetError, match="votes"):
        crosschecking._judge(*checked(made.expression_set(["happy"]), found.select(np.array([0])), analyzer))


def test_predictions_out_of_fold_replace_those_of_the_model(analyzer, tmp_path):
    dataset = made.expression_set(["happy", "sad"] * 20)
    probabilities = np.random.default_rng(0).dirichlet(np.ones(7), 30).astype(np.float32)
    keys = np.array([f"made:{row}" for row in range(30)])
    np.savez(tmp_path / "folds.npz", keys=keys, probabilities=probabilities)
    own = crosscheck(dataset, analyzer=analyzer)
    result = crosscheck(dataset, analyzer=analyzer, out_of_fold=tmp_path / "folds.npz")
    of_model = own.evaluation.predictions
    expected = np.concatenate([probabilities, of_model.scores[30:]])
    right = expected.argmax(1) == result.evaluation.truth
    assert result.evaluation.expression.accuracy == pytest.approx(right.mean())
    expected[30:] = of_model.second[30:]
    scores = result.to_frame().sort_values("index")["score"]
    np.testing.assert_allclose(scores, 1 - expected[np.arange(40), result.evaluation.truth], atol=1e-5)
    np.savez(tmp_path / "other.npz", keys=np.array(["fer2013:1"]), probabilities=probabilities[:1])
    with pytest.raises(DatasetError, match="no row of made"):
        crosscheck(dataset, analyzer=analyzer, out_of_fold=tmp_path / "other.npz")
    with pytest.raises(DatasetError, match=r"folds\.npz"):
        crosscheck(dataset, analyzer=analyzer, out_of_fold=tmp_path / "missing.npz")


def test_pictures_of_the_training_data_are_recognised(folder, weights, analyzer):
    plain = crosscheck(folder, analyzer=analyzer)
    hashes = plain.evaluation.predictions.hashes
    listed = Path(weights).with_suffix(".seen")
    listed.write_bytes(hashes[::3].astype(">u8").tobytes())
    try:
        seen = crosscheck(folder, weights=weights, device="cpu", detector="none").evaluation.seen
    finally:
        listed.unlink()
    np.testing.assert_array_equal(seen, np.arange(92) % 3 == 0)


def test_predictions_of_a_cross_check_read_back_as_labels_fit(folder, analyzer, tmp_path):
    crosscheck(folder, analyzer=analyzer, out=tmp_path)
    (tmp_path / "labels.jsonl").write_bytes((tmp_path / "predictions.jsonl").read_bytes())
    again = evaluate(load_dataset(tmp_path / "labels.jsonl"), analyzer=analyzer)
    assert again.expression.n == 92
    assert again.expression.accuracy == 1
    assert again.keypoints.nme == pytest.approx(0, abs=2e-3)


LISTS = {
    "data/legend.csv": ("images", "user.id,image,emotion\n3,000.png,fear\n"),
    "label.lst": ("image/origin", "000.png 0 5 10 50 55 22.9 5\n"),
}


@pytest.mark.parametrize(
    ("given", "listed"),
    [(".", "data/legend.csv"), ("data", "data/legend.csv"), (".", "label.lst"), ("label.lst", "label.lst")],
)
def test_predictions_name_pictures_where_they_lie(given, listed, analyzer, tmp_path):
    folder, labels = LISTS[listed]
    made.class_folders(tmp_path, {folder: 1})
    (tmp_path / listed).parent.mkdir(exist_ok=True)
    (tmp_path / listed).write_text(labels)
    crosscheck(tmp_path / given, analyzer=analyzer, out=tmp_path / "out")
    read = load_dataset(tmp_path / "out" / "predictions.jsonl")
    assert len(read) == 1
    assert read.load(0).shape[:2] == (64, 64)


def test_pictures_are_drawn_with_points_where_they_lie(analyzer):
    dataset = made.point_set(30, load=lambda place: made.picture(place, 120))
    measured, suspected = checked(dataset, made.predictions_of(dataset, points=dataset.points + 1), analyzer)
    result = crosschecking.CrossCheck(measured, suspected, {}, None, None)
    picture, labelled, predicted = result.portrait(0)
    assert picture.shape[0] == picture.shape[1]
    scale = np.linalg.norm(labelled[0] - labelled[1]) / np.linalg.norm(
        dataset.points[0, 0] - dataset.points[0, 1]
    )
    np.testing.assert_allclose(predicted - labelled, np.full((15, 2), scale), atol=1e-4)
    lengths, offsets = result.mean_face_errors()
    assert (lengths > 0).all()
    np.testing.assert_allclose(np.linalg.norm(offsets, axis=1), lengths, rtol=0.05)
    assert len(result.plot_samples().axes) == 24
    assert result.plot_mean_face().axes
    with pytest.raises(DatasetError, match="no keypoints"):
        crosscheck(made.expression_set(["happy"] * 3), analyzer=analyzer).plot_mean_face()


def test_a_clean_list_leaves_out_rows_with_faults(analyzer, tmp_path):
    same = {5: 4, 9: 8}  # row 5 is a copy of 4 with its label; row 9 one of 8 with another
    labels = ["happy"] * 9 + ["sad"] * 3 + ["unheard of"]
    dataset = made.expression_set(
        labels,
        load=lambda place: made.picture(same.get(place, place)) * (place != 11),
        splits=strings(["train"] * 13),
    )
    result = crosscheck(dataset, analyzer=analyzer)
    count = report.write_clean(result, tmp_path / "clean.csv")
    with (tmp_path / "clean.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == [0, 1, 2, 3, 4, 6, 7, 10]
    assert count == len(rows)
    assert list(rows[0]) == ["index", "source", "split", "label", "suspect", "flagged"]


def test_faces_of_one_picture_are_no_copies_in_a_clean_list(analyzer, tmp_path):
    boxes = np.array([[0, 0, 32, 32], [32, 32, 64, 64], [0, 0, 32, 32]], np.float32)
    dataset = made.expression_set(["happy"] * 3, load=lambda _: made.picture(0), boxes=boxes)
    result = crosscheck(dataset, analyzer=analyzer)
    assert result.faults["duplicates"]["copies"] == [2]
    assert report.write_clean(result, tmp_path / "clean.csv") == 2


@pytest.mark.data
def test_shipped_weights_on_real_points(data_folder):
    helen = load_dataset(data_folder / "landmarks68" / "helen_train")
    chosen = evaluation.choose_samples(helen, limit=40)
    chosen.points[5] = swap_sides(chosen.points[5])
    result = crosscheck(chosen, device="cpu")
    assert result.evaluation.boxes == "labels"
    assert result.evaluation.keypoints.nme < 0.15
    assert result.suspects.places[0] == 5
    assert result.suspects.patterns[0] == SWAPPED
    assert result.faults["swapped_sides"]["rows"] == [int(chosen.rows[5])]
    assert result.evaluation.seen is not None
    assert 0 < result.evaluation.seen.mean() <= 1


@pytest.mark.data
def test_shipped_weights_on_whole_pictures(data_folder, tmp_path):
    result = crosscheck(data_folder / "muxspace", out=tmp_path, limit=25, device="cpu")
    assert result.evaluation.boxes == "detector"
    assert result.evaluation.expression.undetected < 15
    page = report.write_report(result, tmp_path)
    assert page.stat().st_size < 2_000_000
