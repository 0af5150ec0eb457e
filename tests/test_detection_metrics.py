"""Detections are matched and scored as the definitions say."""

from __future__ import annotations

import numpy as np
import pytest

from facekit.detection_metrics import Matches, fit_logistic, match, reliability

FACE = np.array([[0.0, 0, 10, 10]])
NONE = np.zeros((0, 4))


def test_each_face_is_found_once_by_its_best_detection() -> None:
    boxes = np.array([[0.0, 0, 10, 9], [0, 0, 10, 10], [50, 50, 60, 60]])
    matches = match([boxes], [np.array([0.6, 0.9, 0.4])], [FACE], [NONE])
    assert matches.scores.tolist() == [0.9, 0.6, 0.4]
    assert matches.right.tolist() == [True, False, False]
    assert matches.best.tolist() == [0.9]
    assert matches.recall(0.5) == 1
    assert matches.recall(0.95) == 0
    assert matches.false_positives(0.5) == 1


def test_scores_may_be_logits() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 9]])
    matches = match([boxes], [np.array([-2.0, -3.0])], [FACE], [NONE])
    assert matches.right.tolist() == [True, False]
    assert matches.average_precision() == 1
    assert matches.recall(-2.5) == 1


def test_doubtful_labels_count_neither_way() -> None:
    boxes = np.array([[50.0, 50, 60, 60], [0, 0, 10, 10]])
    doubtful = np.array([[50.0, 50, 60, 61]])
    matches = match([boxes], [np.array([0.9, 0.8])], [FACE], [doubtful])
    assert matches.right.tolist() == [True]


def test_pictures_without_faces_or_detections_count() -> None:
    matches = match([NONE, FACE], [np.zeros(0), np.ones(1)], [FACE, NONE], [NONE, NONE])
    assert matches.recall(0.0) == 0
    assert matches.false_positives(0.5) == 0.5
    assert matches.average_precision() == 0


def test_average_precision_by_hand() -> None:
    right = np.array([True, False, True, False, True])
    matches = Matches(np.array([0.9, 0.8, 0.7, 0.6, 0.5]), right, np.array([0.9, 0.7, 0.5, -np.inf]), 1)
    # Precision at the three finds: 1, 2/3, 3/5; made to fall it is the same; one face of four is never found.
    assert matches.average_precision() == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)


def test_average_precision_takes_the_best_precision_further_on() -> None:
    matches = Matches(np.array([0.9, 0.8, 0.7]), np.array([False, True, True]), np.array([0.8, 0.7]), 1)
    assert matches.average_precision() == pytest.approx(2 / 3)


def test_the_logistic_is_found_again() -> None:
    generator = np.random.default_rng(0)
    logits = generator.uniform(-6, 6, 40_000)
    right = generator.random(40_000) < 1 / (1 + np.exp(-(0.7 * logits - 1.5)))
    slope, offset = fit_logistic(logits, right)
    assert slope == pytest.approx(0.7, abs=0.03)
    assert offset == pytest.approx(-1.5, abs=0.06)
    scores = 1 / (1 + np.exp(-(slope * logits + offset)))
    assert reliability(scores, right)[1] < 0.01
    assert reliability(np.sqrt(scores), right)[1] > 0.05


def test_reliability_counts_every_detection() -> None:
    rows, error = reliability(np.array([0.05, 0.95, 1.0, 0.85]), np.array([False, True, False, True]))
    assert [row["n"] for row in rows] == [1, 1, 2]
    assert rows[-1] == {"score": pytest.approx(0.975), "share": 0.5, "n": 2}
    assert error == pytest.approx((0.05 + 0.15 + 2 * 0.475) / 4)
