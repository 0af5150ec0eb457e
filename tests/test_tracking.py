from __future__ import annotations

import numpy as np
import pytest

from facekit.schema import MEAN_FACE
from facekit.tracking import LONGEST_GAP, SceneCuts, Tracker

STEP = 0.04
SIZE = 60.0


def face(x: float, y: float, size: float = SIZE, shape: float = 0.0) -> np.ndarray:
    """Points (15, 2) of a face at a place; `shape` makes another person's."""
    points = np.array(MEAN_FACE) * [1, 1 + shape]
    return np.float32(points * size + [x, y])


def look(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (48, 48), np.uint8)


class Stage:
    """Feeds a tracker faces frame by frame."""

    def __init__(self) -> None:
        self.tracker, self.time = Tracker(), 0.0

    def detect(self, *faces: np.ndarray, looks: tuple[int, ...] = ()) -> list[int | None]:
        self.time += STEP
        points = np.array(faces, np.float32).reshape(-1, 15, 2)
        boxes = np.concatenate([points.min(1) - 8, points.max(1) + 8], 1)
        pictures = np.array([look(seed) for seed in looks or range(len(faces))], np.uint8)
        tracks = self.tracker.detect(self.time, boxes, points, np.ones(len(faces)), pictures)
        self.tracker.prune(self.time)
        return [track and track.id for track in tracks]

    def follow(self, points: np.ndarray, seed: int = 0, searched: bool = True) -> bool:
        self.time += STEP
        tracks = self.tracker.to_follow(self.time, searched)
        kept = bool(tracks) and self.tracker.follow(tracks[0], self.time, points, look(seed))
        self.tracker.prune(self.time)
        return kept

    def wait(self, seconds: float) -> None:
        self.time += seconds
        self.tracker.prune(self.time)


def test_ids_stay_whatever_the_order_in_which_faces_are_found():
    stage = Stage()
    assert stage.detect(face(60, 60), face(200, 60)) == [1, 2]
    for step in range(1, 20):
        moved = [face(60 + 2 * step, 60), face(200, 60 + 2 * step)]
        assert stage.detect(*moved) == [1, 2]
        assert stage.detect(*moved[::-1]) == [2, 1]


def test_faces_that_pass_each_other_keep_their_ids_by_motion():
    stage = Stage()
    for step in range(40):
        left, right = face(60 + 4 * step, 100), face(220 - 4 * step, 122)
        assert stage.detect(left, right) == [1, 2]


def test_shape_decides_where_motion_and_overlap_do_not():
    stage = Stage()
    for _ in range(5):
        stage.detect(face(95, 80, shape=0.0), face(145, 80, shape=0.35))
    both_at_equal_distance = [face(120, 60, shape=0.35), face(120, 100, shape=0.0)]
    assert stage.detect(*both_at_equal_distance) == [2, 1]


def test_a_new_face_gets_a_new_id_and_ids_are_not_used_again():
    stage = Stage()
    assert stage.detect(face(60, 60)) == [1]
    assert stage.detect(face(60, 60), face(200, 60)) == [1, 2]
    stage.tracker.forget()
    assert stage.detect(face(60, 60), face(200, 60)) == [3, 4]
    assert stage.detect() == []


@pytest.mark.parametrize(("gap", "expected"), [(0.5 * LONGEST_GAP, 1), (1.5 * LONGEST_GAP, 2)])
def test_a_short_gap_is_bridged_and_a_long_one_is_not(gap, expected):
    stage = Stage()
    for step in range(10):
        stage.detect(face(60 + step, 60))
    stage.wait(gap)
    assert stage.detect(face(75, 60)) == [expected]


@pytest.mark.parametrize("other", [face(160, 60), face(60, 60, size=2 * SIZE), face(60, 60, size=SIZE / 2)])
def test_a_face_far_away_or_of_another_size_is_another(other):
    stage = Stage()
    stage.detect(face(60, 60))
    assert stage.detect(other) == [2]


def test_two_boxes_on_one_face_are_one_face_and_the_known_one_wins():
    stage = Stage()
    assert stage.detect(face(60, 60), face(63, 60)) == [1, None]
    assert stage.detect(face(66, 61), face(62, 60)) in ([None, 1], [1, None])
    assert [track.id for track in stage.tracker.tracks] == [1]


def test_a_face_is_followed_where_it_looks_like_itself():
    stage = Stage()
    for step in range(5):
        stage.detect(face(60 + 2 * step, 60))
    assert stage.follow(face(71, 60))
    assert not stage.follow(face(73, 60), seed=7), "something else lies there"
    assert not stage.follow(face(180, 60)), "it cannot have moved that far"
    (track,) = stage.tracker.tracks
    assert (track.id, track.sightings) == (1, 6)


def test_a_strange_box_is_doubted_until_the_detector_insists():
    stage = Stage()
    for _ in range(5):
        stage.detect(face(60, 60))
    (track,) = stage.tracker.tracks
    strange = face(72, 60, size=0.65 * SIZE)
    for _ in range(3):
        assert stage.detect(strange) == [1]
        assert track.time < stage.time, "it was believed"
        assert stage.tracker.to_follow(stage.time, searched=True) == [track]
    stage.detect(strange)
    assert track.time == stage.time
    assert np.array_equal(track.points, strange)


def test_the_box_goes_with_the_points():
    stage = Stage()
    stage.detect(face(60, 60))
    (track,) = stage.tracker.tracks
    before = track.box.copy()
    assert stage.follow(face(70, 65, size=1.1 * SIZE), searched=False)
    assert np.allclose(track.box[:2] + track.box[2:], before[:2] + before[2:] + [20, 10], atol=1.5)
    assert np.allclose(track.box[2:] - track.box[:2], (before[2:] - before[:2]) * 1.1, atol=0.5)


def test_what_the_detector_saw_once_is_not_believed_without_it():
    stage = Stage()
    stage.detect(face(60, 60))
    stage.detect()
    assert stage.tracker.to_follow(stage.time, searched=True) == []
    assert [track.id for track in stage.tracker.to_follow(stage.time, searched=False)] == [1]


def test_a_face_that_the_detector_denies_for_long_goes():
    stage = Stage()
    for _ in range(5):
        stage.detect(face(60, 60))
    for _ in range(int(LONGEST_GAP / STEP) + 2):
        stage.detect()
        stage.time -= STEP
        kept = stage.follow(face(60, 60))
    assert not kept
    assert stage.tracker.tracks == []


def test_a_track_follows_no_face_that_another_shows_already():
    stage = Stage()
    for _ in range(5):
        stage.detect(face(60, 60), face(110, 60), looks=(0, 1))
    stage.detect(face(110, 60), looks=(1,))
    (lost,) = stage.tracker.to_follow(stage.time, searched=True)
    assert lost.id == 1
    assert not stage.tracker.follow(lost, stage.time, face(108, 60), look(0))


def test_an_instant_between_two_frames_does_not_throw_a_track_away():
    stage = Stage()
    stage.detect(face(60, 60))
    stage.time -= STEP - 1e-6
    stage.detect(face(70, 60))
    (track,) = stage.tracker.tracks
    assert np.isfinite(track.points_at(stage.time + 1)).all()
    assert np.abs(track.points_at(stage.time + 1) - track.points).max() < 2 * SIZE


def scene(seed: int) -> np.ndarray:
    import cv2

    coarse = np.random.default_rng(seed).integers(20, 236, (7, 9), np.uint8)
    return cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC)


def test_a_cut_is_seen_and_light_noise_and_motion_are_not():
    random, cuts = np.random.default_rng(0), SceneCuts()
    pictures = [np.roll(scene(1), 6 * step, 1) for step in range(10)]
    pictures += [np.clip(pictures[-1] * gain, 0, 255).astype(np.uint8) for gain in (1.0, 1.6, 0.6, 1.0)]
    pictures += [np.clip(pictures[-1] + random.normal(0, 20, (240, 320)), 0, 255).astype(np.uint8)]
    assert [cuts(picture) for picture in pictures] == [False] * len(pictures)
    assert cuts(scene(2))
    assert not cuts(scene(2))


def test_darkness_with_noise_has_no_cuts_but_its_ends_may():
    random, cuts = np.random.default_rng(0), SceneCuts()
    assert not any(cuts(random.integers(0, 12, (240, 320), np.uint8)) for _ in range(10))
    assert cuts(scene(1))
