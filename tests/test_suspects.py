from __future__ import annotations

import numpy as np
import pytest

from facekit import geometry, suspects
from facekit.metrics import auroc
from facekit.mirror import mirror_per_point, mirror_points, swap_sides
from facekit.schema import KEYPOINTS, MEAN_FACE


def made_faces(n=300, seed=0):
    """Give turned faces of many sizes, labelled with errors that follow sigma, in image pixels."""
    random = np.random.default_rng(seed)
    angle, scale = random.uniform(-0.5, 0.5, n), random.uniform(30, 300, n)
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1).reshape(n, 2, 2)
    predicted = np.array(MEAN_FACE) @ turn.swapaxes(1, 2) * scale[:, None, None] + random.uniform(
        0, 500, (n, 1, 2)
    )
    sigma = scale[:, None] * random.uniform(0.01, 0.04, (n, 15))
    radius, direction = random.gamma(2, sigma / 2), random.uniform(0, 2 * np.pi, sigma.shape)
    labelled = predicted + np.stack([radius * np.cos(direction), radius * np.sin(direction)], -1)
    return labelled, predicted, sigma, scale


def test_scores_of_expressions_by_hand():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    labels = np.array([0, 1, 2])
    np.testing.assert_allclose(suspects.self_confidence(labels, probabilities), [0.3, 0.8, 0.2])
    np.testing.assert_allclose(suspects.normalized_margin(labels, probabilities), [0.25, 0.75, 0.15])


def test_confident_joint_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.35, 0.65], [0.2, 0.8], [0.85, 0.15], [0.4, 0.6]])
    labels = np.array([0, 0, 0, 1, 1, 1])
    # The thresholds are (.9 + .7 + .35) / 3 = .65 and (.8 + .15 + .6) / 3 = .517.
    flagged = suspects.confidently_other(labels, probabilities)
    np.testing.assert_array_equal(flagged, [False, False, True, False, True, False])


def test_a_class_without_rows_takes_no_labels():
    probabilities = np.array([[0.4, 0.1, 0.5], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]])
    flagged = suspects.confidently_other(np.array([0, 0, 1]), probabilities)
    np.testing.assert_array_equal(flagged, [False, False, False])


def test_planted_expression_errors_come_first():
    random = np.random.default_rng(0)
    truth = random.integers(0, 7, 2000)
    logits = random.normal(0, 1, (2000, 7)) + 4 * np.eye(7)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels, planted = truth.copy(), np.zeros(2000, bool)
    planted[:160] = True
    labels[planted] = (truth[planted] + random.integers(1, 7, 160)) % 7
    for score in (suspects.self_confidence, suspects.normalized_margin):
        assert auroc(score(labels, probabilities), planted) > 0.98
    flagged = suspects.confidently_other(labels, probabilities)
    assert flagged[planted].mean() > 0.75
    assert flagged[~planted].mean() < 0.05


def test_errors_as_expected_are_not_flagged_and_score_about_a_half():
    labelled, predicted, sigma, _ = made_faces()
    scores, flagged, patterns = suspects.point_scores(labelled, predicted, sigma)
    assert flagged.mean() < 0.01
    assert set(patterns[~flagged]) == {""}
    assert np.median(scores) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("missing", [(), (0, 5, 10)])
def test_planted_faults_of_points_are_found_and_named(missing):
    labelled, predicted, sigma, scale = made_faces()
    labelled[0] = swap_sides(labelled[0])
    labelled[1] += scale[1] * np.array([0.2, -0.1])
    labelled[2, KEYPOINTS.index("mouth_left_corner")] += scale[2] * np.array([0.4, 0.0])
    labelled[:, list(missing)] = np.nan
    scores, flagged, patterns = suspects.point_scores(labelled, predicted, sigma)
    assert flagged[:3].all()
    assert flagged[3:].mean() < 0.01
    assert patterns[:3].tolist() == [suspects.SWAPPED, suspects.SHIFTED, suspects.ASTRAY]
    assert scores[:3].min() > scores[3:].max()
    assert scores.max() < 1


def test_a_convention_shared_by_the_whole_set_is_no_fault():
    labelled, predicted, sigma, _ = made_faces()
    image_from_face = geometry.similarity(np.broadcast_to(MEAN_FACE, predicted.shape), predicted)
    labelled[:, KEYPOINTS.index("nose_tip")] += image_from_face[..., :2] @ (0, 0.2)
    _, flagged, _ = suspects.point_scores(labelled, predicted, sigma)
    assert flagged.mean() < 0.02


def test_scores_do_not_change_with_size_or_mirroring():
    labelled, predicted, sigma, _ = made_faces()
    plain, _, _ = suspects.point_scores(labelled, predicted, sigma)
    larger, _, _ = suspects.point_scores(labelled * 3, predicted * 3, sigma * 3)
    mirrored, _, _ = suspects.point_scores(
        mirror_points(labelled, 700), mirror_points(predicted, 700), mirror_per_point(sigma)
    )
    np.testing.assert_allclose(plain, larger, atol=1e-9)
    np.testing.assert_allclose(plain, mirrored, atol=1e-9)
