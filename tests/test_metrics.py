from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics as reference

from facekit import metrics
from facekit.mirror import mirror_per_point, mirror_points
from facekit.schema import EXPRESSIONS, KEYPOINTS

LEFT, RIGHT = KEYPOINTS.index("left_eye_outer_corner"), KEYPOINTS.index("right_eye_outer_corner")


def made_predictions(n=600, undetected=0, seed=0):
    random = np.random.default_rng(seed)
    truth = random.choice(7, n, p=[0.3, 0.02, 0.1, 0.28, 0.1, 0.1, 0.1])
    logits = random.normal(size=(n, 7)) + 2 * np.eye(7)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    probabilities[:undetected] = np.nan
    return truth, probabilities


def made_faces(n=40, seed=0):
    random = np.random.default_rng(seed)
    truth = random.uniform(20, 80, (n, 15, 2))
    truth[:, LEFT], truth[:, RIGHT] = (70, 30), (30, 30)
    return truth, truth + random.normal(0, 1.5, truth.shape), np.full((n, 15), 1.9)


def test_expression_figures_agree_with_scikit_learn():
    truth, probabilities = made_predictions()
    predicted = probabilities.argmax(1)
    found = metrics.expression_metrics(truth, probabilities)
    precision, recall, f1, support = reference.precision_recall_fscore_support(truth, predicted)
    np.testing.assert_array_equal(found.confusion, reference.confusion_matrix(truth, predicted))
    assert found.accuracy == pytest.approx(reference.accuracy_score(truth, predicted))
    assert found.balanced_accuracy == pytest.approx(reference.balanced_accuracy_score(truth, predicted))
    assert found.macro_f1 == pytest.approx(reference.f1_score(truth, predicted, average="macro"))
    assert found.nll == pytest.approx(reference.log_loss(truth, probabilities))
    by_class = [reference.brier_score_loss(truth == c, probabilities[:, c]) for c in range(7)]
    assert found.brier == pytest.approx(sum(by_class))
    for c, label in enumerate(EXPRESSIONS):
        expected = {"n": support[c], "precision": precision[c], "recall": recall[c], "f1": f1[c]}
        assert found.per_class[label] == pytest.approx(expected)


def test_calibration_error_of_bins_by_hand():
    truth = np.zeros(10, int)
    probabilities = np.zeros((10, 7))
    probabilities[:, 0], probabilities[:, 1] = 0.85, 0.15
    probabilities[8:] = np.roll(probabilities[8:], 1, axis=1)  # 8 of 10 right at confidence .85
    assert metrics.expression_metrics(truth, probabilities).ece == pytest.approx(0.05)
    counts, confidence, accuracy = metrics.reliability(truth, probabilities)
    assert counts[12] == 10
    assert confidence[12] == pytest.approx(0.85)
    assert accuracy[12] == pytest.approx(0.8)
    assert np.isnan(np.delete(confidence, 12)).all()


def test_undetected_faces_are_wrong_but_absent_from_what_is_predicted():
    truth, probabilities = made_predictions(undetected=100)
    found = metrics.expression_metrics(truth, probabilities, other_labels={"contempt": 3})
    rest = metrics.expression_metrics(truth[100:], probabilities[100:])
    assert (found.n, found.undetected, found.other_labels) == (600, 100, {"contempt": 3})
    assert found.accuracy == pytest.approx(rest.accuracy * 500 / 600)
    assert found.confusion.sum() == 500
    assert (found.nll, found.brier, found.ece) == pytest.approx((rest.nll, rest.brier, rest.ece))
    happy = truth == 3
    right = happy & (np.nan_to_num(probabilities).argmax(1) == 3) & ~np.isnan(probabilities[:, 0])
    assert found.per_class["happy"]["recall"] == pytest.approx(right.sum() / happy.sum())


def test_means_over_classes_leave_out_classes_that_the_truth_lacks():
    truth = np.array([0, 0, 3, 3])
    probabilities = np.eye(7)[[0, 3, 3, 4]]
    found = metrics.expression_metrics(truth, probabilities)
    assert found.balanced_accuracy == pytest.approx(0.5)
    assert found.macro_f1 == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found.per_class["fear"] == {"n": 0, "precision": None, "recall": None, "f1": None}
    assert found.per_class["sad"] == {"n": 0, "precision": 0, "recall": None, "f1": 0}


def test_no_rows_and_no_faces_give_null_instead_of_nan():
    nothing = metrics.expression_metrics(np.zeros(0, int), np.zeros((0, 7)))
    no_faces = metrics.expression_metrics(np.zeros(3, int), np.full((3, 7), np.nan))
    assert nothing.accuracy is None
    assert (no_faces.accuracy, no_faces.nll, no_faces.ece) == (0, None, None)
    points = np.full((2, 15, 2), np.nan)
    unknown = metrics.keypoint_metrics(points, points, points[..., 0], np.ones(2))
    assert unknown.nme is None
    for result in (nothing, no_faces, unknown):
        assert "NaN" not in json.dumps(result.to_dict(), allow_nan=False)


def test_intervals_are_seeded_and_hold_the_truth_as_often_as_they_say():
    truth, probabilities = made_predictions(40_000)
    population = metrics.expression_metrics(truth, probabilities, replicates=1)
    held = dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1", "nll", "brier"), 0)
    for part in range(100):
        rows = slice(part * 400, part * 400 + 400)
        found = metrics.expression_metrics(truth[rows], probabilities[rows], replicates=300)
        for name in held:
            low, high = found.ci95[name]
            held[name] += low <= getattr(population, name) <= high
    assert all(count >= 85 for count in held.values()), held
    again = metrics.expression_metrics(truth[rows], probabilities[rows], replicates=300)
    other = metrics.expression_metrics(truth[rows], probabilities[rows], replicates=300, seed=1)
    assert again.ci95 == found.ci95 != other.ci95


def test_interval_of_the_calibration_error_holds_the_estimate():
    truth, probabilities = made_predictions()
    found = metrics.expression_metrics(truth, probabilities)
    low, high = found.ci95["ece"]
    assert 0 <= low <= found.ece <= high


def test_keypoint_figures_by_hand():
    truth = np.zeros((4, 15, 2))
    truth[:, LEFT], truth[:, RIGHT] = (50, 0), (-50, 0)
    truth[1, 0] = np.nan
    truth[2, LEFT] = np.nan
    predicted = truth + np.array([0, 5])  # 5 px everywhere: NME .05
    predicted[1] = np.nan_to_num(truth[1]) + np.array([9, 0])  # NME .09
    predicted[2] = 0
    predicted[3] = np.nan
    found = metrics.keypoint_metrics(truth, predicted, np.full((4, 15), 5.0), np.full(4, 192.0))
    assert (found.n, found.undetected, found.n_normalized) == (4, 1, 3)
    assert found.nme == pytest.approx((0.05 + 0.09) / 2)
    assert found.failure_rate_08 == pytest.approx(2 / 3)
    assert found.auc_08 == pytest.approx((1 - 0.05 / 0.08) / 3)
    squares = (
        15 * 2.5**2 + 14 * 4.5**2 + 25.0**2
    )  # half scale: 192 px crop; face 2 is wrong in one corner alone
    assert found.rmse_96 == pytest.approx(np.sqrt(squares / (2 * (15 + 14 + 14))))
    assert found.per_point["nose_tip"] == pytest.approx(0.07)
    assert found.per_point[KEYPOINTS[0]] == pytest.approx(0.05)
    assert found.coverage_68 == pytest.approx((15 + 13) / 43)


def test_area_under_the_cumulative_curve_is_its_integral():
    truth, predicted, sigma = made_faces(200)
    errors = metrics.normalized_errors(truth, predicted)
    grid = np.linspace(0, 0.08, 20_001)
    curve = (errors[:, None] <= grid).mean(0)
    found = metrics.keypoint_metrics(truth, predicted, sigma, np.full(200, 96.0))
    assert found.auc_08 == pytest.approx(np.trapezoid(curve, grid) / 0.08, abs=1e-4)
    places, shares = metrics.cumulative_distribution(np.append(errors, [np.inf, np.nan]))
    assert len(places) == 200
    assert shares[-1] == pytest.approx(200 / 201)


def test_mirroring_labels_and_predictions_changes_no_figure():
    truth, predicted, sigma = made_faces()
    truth[::3, 4] = np.nan
    plain = metrics.keypoint_metrics(truth, predicted, sigma, np.full(40, 96.0))
    mirrored = metrics.keypoint_metrics(
        mirror_points(truth, 96), mirror_points(predicted, 96), mirror_per_point(sigma), np.full(40, 96.0)
    )
    for name in ("nme", "rmse_96", "failure_rate_08", "auc_08", "coverage_68"):
        assert getattr(plain, name) == pytest.approx(getattr(mirrored, name))


def test_coverage_of_errors_that_follow_the_model():
    random = np.random.default_rng(0)
    truth, _, sigma = made_faces(2000)
    radius, angle = random.gamma(2, sigma / 2), random.uniform(0, 2 * np.pi, sigma.shape)
    predicted = truth + np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)
    found = metrics.keypoint_metrics(truth, predicted, sigma, np.full(2000, 96.0))
    assert found.coverage_68 == pytest.approx(0.68, abs=0.01)
    assert found.coverage_95 == pytest.approx(0.95, abs=0.01)


def test_auroc_and_precision_at_k():
    random = np.random.default_rng(0)
    scores = random.integers(0, 20, 500) / 20
    positive = random.random(500) < scores
    assert metrics.auroc(scores, positive) == pytest.approx(reference.roc_auc_score(positive, scores))
    assert metrics.auroc(scores, np.ones(500, bool)) is None
    assert metrics.precision_at(np.array([0.1, 0.9, 0.8]), np.array([True, False, True]), 2) == 0.5
    assert metrics.precision_at(scores, positive, 501) is None
