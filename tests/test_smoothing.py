from __future__ import annotations

import numpy as np
import pytest

from facekit.schema import MEAN_FACE
from facekit.smoothing import FaceSmoother, share

RATE = 25
SIZE = 80.0


def face_at(middles: np.ndarray) -> np.ndarray:
    """Points (T, 15, 2) of a mean face whose middle is at (T, 2)."""
    return np.array(MEAN_FACE) * SIZE + middles[:, None]


def smoothed(points: np.ndarray, boxes: np.ndarray, sigma=None, scores=None, rate: float = RATE):
    count = len(points)
    sigma = np.full(15, 0.02 * SIZE) if sigma is None else sigma
    scores = np.full((count, 7), 1 / 7) if scores is None else scores
    smoother = FaceSmoother()
    rows = [smoother(t / rate, boxes[t], points[t], sigma, scores[t]) for t in range(count)]
    return [np.array(column) for column in zip(*rows, strict=True)]


def boxes_around(middles: np.ndarray) -> np.ndarray:
    return np.concatenate([middles - SIZE / 2, middles + SIZE / 2], 1)


def jitter(errors: np.ndarray) -> float:
    return float(np.sqrt((np.diff(errors[RATE:], axis=0) ** 2).mean()))


def noisy(middles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points as the network sees them (they jitter together and each alone), boxes, and the true points."""
    random, truth = np.random.default_rng(3), face_at(middles)
    points = truth + random.normal(0, 0.3, (len(truth), 1, 2)) + random.normal(0, 0.3, truth.shape)
    return points, boxes_around(middles) + random.normal(0, 2, (len(truth), 4)), truth


def test_the_first_frame_is_what_was_seen_and_what_stands_still_stays():
    points, boxes = face_at(np.full((40, 2), 100.0)), boxes_around(np.full((40, 2), 100.0))
    box, xy, scores = smoothed(points, boxes)
    assert np.allclose(xy, points, atol=1e-4)
    assert np.allclose(box, boxes, atol=1e-4)
    assert np.allclose(scores, 1 / 7)
    assert {value.dtype for value in (box, xy, scores)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("rate", [12.5, 25, 60])
def test_jitter_at_rest_falls_by_more_than_60_percent(rate):
    middles = np.full((200, 2), 100.0)
    points, boxes, truth = noisy(middles)
    box, xy, _ = smoothed(points, boxes, rate=rate)
    assert jitter(xy - truth) < 0.4 * jitter(points - truth)
    assert jitter(box) < 0.4 * jitter(boxes)


@pytest.mark.parametrize("rate", [25, 60])
def test_motion_is_followed_within_two_frames(rate):
    seconds = np.arange(6 * rate) / rate
    middles = 150 + SIZE * 0.5 * np.stack([np.sin(np.pi * seconds), np.sin(2 * np.pi * 0.3 * seconds)], 1)
    points, boxes, truth = noisy(middles)
    box, xy, _ = smoothed(points, boxes, rate=rate)
    delays = np.arange(0, 6, 0.1)
    at = np.arange(20, len(truth))

    def lag(places: np.ndarray, known: np.ndarray) -> float:
        flat, known = places.reshape(len(places), -1), known.reshape(len(known), -1)
        late = [
            np.column_stack([np.interp(at - delay, np.arange(len(known)), column) for column in known.T])
            for delay in delays
        ]
        return float(delays[int(np.argmin([((flat[at] - one) ** 2).mean() for one in late]))])

    assert lag(xy, truth) < 2
    assert lag(box, boxes_around(middles)) < 2
    assert np.sqrt(((xy - truth)[20:] ** 2).mean()) < 0.03 * SIZE


def test_a_jump_is_not_dragged_behind():
    middles = np.where(np.arange(60)[:, None] < 30, 100.0, 160.0) * np.ones((1, 2))
    _, xy, _ = smoothed(face_at(middles), boxes_around(middles))
    left = np.abs(xy - face_at(middles)).max((1, 2))
    assert left[31] < 10
    assert left[36] < 1


def test_points_that_are_less_certain_are_smoothed_more():
    points, boxes, truth = noisy(np.full((300, 2), 100.0))
    sigma = np.where(np.arange(15) < 7, 0.01, 0.05) * SIZE
    _, xy, _ = smoothed(points, boxes, sigma)
    assert jitter((xy - truth)[:, 7:]) < 0.8 * jitter((xy - truth)[:, :7])


def test_the_size_of_a_face_does_not_matter():
    points, boxes, _ = noisy(np.full((50, 2), 100.0) + np.linspace(0, 40, 50)[:, None])
    box, xy, _ = smoothed(points, boxes)
    box3, xy3, _ = smoothed(points * 3, boxes * 3, np.full(15, 0.06 * SIZE))
    assert np.allclose(xy3, xy * 3, atol=1e-3)
    assert np.allclose(box3, box * 3, atol=1e-3)


def test_probabilities_stay_probabilities_and_follow_within_half_a_second():
    middles = np.full((50, 2), 100.0)
    scores = np.where(np.arange(50)[:, None] < 25, np.eye(7)[3], np.eye(7)[5])
    _, _, smooth = smoothed(face_at(middles), boxes_around(middles), scores=scores)
    assert np.allclose(smooth.sum(1), 1, atol=1e-5)
    assert smooth[26].argmax() == 3
    assert smooth[25 + RATE // 2].argmax() == 5


def test_one_long_step_counts_like_a_gap_and_not_like_a_frame():
    assert share(1.0, 10.0) > 0.98
    assert share(1.0, 0.001) < 0.01
