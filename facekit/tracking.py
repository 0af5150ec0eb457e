"""Who is who from frame to frame, by motion, overlap and keypoint shape, and where scenes change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit import geometry
from facekit.geometry import Floats

LONGEST_GAP = 1.0
"""Seconds for which a face may be unseen, or unconfirmed by the detector, and still keep its id."""

MISSES = 3
"""Searches by the detector that a face may fail, where they are rarer than LONGEST_GAP."""

TRUSTED = 3
"""Sightings after which a face is believed for a while when the detector misses it."""

REACH = 1.0
"""In face sizes: how far a face may be from where its motion leads."""

GROWTH = 1.6
"""Largest ratio of a face's sizes between two sightings."""

SAME_FACE = 0.2
"""In face sizes: two faces of one frame whose keypoints are closer than this on average are one."""

DOUBTFUL = 0.6
"""A box that overlaps the expected one by less is thought to be the detector's slip, until it insists."""

LIKENESS = 0.6
"""Least correlation of a face that is followed without the detector with its last looks."""

COAST = 0.3
"""Seconds for which an unseen face is thought to keep its velocity."""


@dataclass(eq=False)
class Track:
    """One person's face over time.

    Attributes
    ----------
    id : int
        From 1, in order of appearance; never used again.
    time : float
        When it was last seen, seconds.
    box : (4,) float32, image edges
    points : (15, 2) float32, image pixels
    score : float
        Of the last detection.
    look : (L,) float64
        The aligned picture of late, of mean 0 and length 1.
    velocity : (2,) float64, pixels a second
    sightings : int
    detected : tuple of float, (4,) and (15, 2)
        Time, box and points when the detector last found it.
    misses, doubts : int
        Searches by the detector since then that found nothing, and in a row that found a doubtful box.
    """

    id: int
    time: float
    box: Floats
    points: Floats
    score: float
    look: Floats
    velocity: Floats
    sightings: int
    detected: tuple[float, Floats, Floats]
    misses: int = 0
    doubts: int = 0

    @property
    def size(self) -> float:
        """Give the root of the box's area, pixels."""
        return float(np.sqrt(geometry.areas(self.box)))

    def points_at(self, time: float) -> Floats:
        """Give where the points (15, 2) should be at a time."""
        shift = self.velocity * min(time - self.time, COAST)
        longest = REACH * float(_size(self.points))
        return np.asarray(self.points + shift * min(1.0, longest / max(float(np.hypot(*shift)), 1e-9)))

    def box_at(self, time: float) -> Floats:
        """Give where the box (4,) should be at a time."""
        return np.asarray(self.box + np.tile((self.points_at(time) - self.points).mean(0), 2))

    def move(self, time: float, points: Floats, look: Floats) -> None:
        """Take where it is seen now; the box goes along with the points unless the detector gives one."""
        elapsed = time - self.time
        shift = (points - self.points).mean(0) / elapsed
        self.velocity = shift if self.sightings == 1 else (self.velocity + shift) / 2
        _, box, then = self.detected
        moved = geometry.apply_to_boxes(geometry.similarity(then, points), box[None])[0]
        self.box = np.asarray(moved, np.float32)
        self.look = _normalised(0.8 * self.look + 0.2 * look)
        self.time, self.points, self.sightings = time, points, self.sightings + 1


class Tracker:
    """Gives the faces of successive frames ids."""

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        self._given = 0

    def forget(self) -> None:
        """Let all faces go: another scene begins."""
        self.tracks = []

    def detect(
        self, time: float, boxes: Floats, points: Floats, scores: Floats, looks: NDArray[np.uint8]
    ) -> list[Track | None]:
        """Take what the detector found in a frame.

        Parameters
        ----------
        time : float, seconds, larger than that of the last frame
        boxes : (N, 4), image edges
        points : (N, 15, 2), image pixels
        scores : (N,)
        looks : (N, 48, 48) uint8, aligned pictures

        Returns
        -------
        list of N Track or None
            The track of each face, new where it was not known; None for a box on a face known already. A
            track whose `time` is not this one doubts the box: follow it, and if that fails, `take` the face.
        """
        for track in self.tracks:
            track.misses += 1
        found: list[Track | None] = [None] * len(looks)
        for face, track in _assign(self.tracks, time, boxes, points):
            found[face] = track
            track.misses = 0
            if self._doubts(track, time, boxes[face]):
                track.doubts += 1
            else:
                self.take(track, time, boxes[face], points[face], float(scores[face]), looks[face])
        for face in range(len(looks)):
            others = [track for track in found if track is not None]
            ghost = coincides(points[face], others) or self._covers(time, boxes[face])
            if found[face] is None and not ghost:
                found[face] = self._start(time, boxes[face], points[face], float(scores[face]), looks[face])
        return found

    def take(
        self, track: Track, time: float, box: Floats, points: Floats, score: float, look: NDArray[np.uint8]
    ) -> None:
        """Believe what the detector found to be a track's face; see `detect`."""
        track.move(time, points, _normalised(look))
        track.box, track.score, track.detected, track.doubts = box, score, (time, box, points), 0

    def _covers(self, time: float, box: Floats) -> bool:
        """Tell whether a box lies half or more in that of a face known well, or the other way round."""
        known = [track for track in self.tracks if track.sightings >= TRUSTED and time - track.time <= COAST]
        boxes = np.array([track.box_at(time) for track in known]).reshape(-1, 4)
        smaller = np.minimum(geometry.areas(boxes), geometry.areas(box))
        return bool((geometry.intersections(box[None], boxes)[0] > smaller / 2).any())

    @staticmethod
    def _doubts(track: Track, time: float, box: Floats) -> bool:
        if track.sightings < TRUSTED or track.doubts >= MISSES:
            return False
        return float(geometry.overlaps(track.box_at(time)[None], box[None])[0, 0]) < DOUBTFUL

    def _start(
        self, time: float, box: Floats, points: Floats, score: float, look: NDArray[np.uint8]
    ) -> Track:
        self._given += 1
        track = Track(
            self._given, time, box, points, score, _normalised(look), np.zeros(2), 1, (time, box, points)
        )
        self.tracks.append(track)
        return track

    def to_follow(self, time: float, searched: bool) -> list[Track]:
        """Give the tracks not seen yet at a time that are worth a look at where they should be.

        Parameters
        ----------
        time : float, seconds
        searched : bool
            The detector was asked and did not find them.
        """
        return [
            track
            for track in self.tracks
            if track.time < time
            and (track.sightings >= TRUSTED or not searched)
            and not self._expired(track, time)
        ]

    def follow(self, track: Track, time: float, points: Floats, look: NDArray[np.uint8]) -> bool:
        """Take what stage 1 sees where a track should be; tell whether that is still its face.

        Keypoints alone cannot tell: a network that has learnt nothing but faces sees one everywhere, and is
        sure of it. What lies under them must look as the face did.

        Parameters
        ----------
        track : Track
        time : float, seconds
        points : (15, 2), image pixels
        look : (48, 48) uint8, the aligned picture
        """
        seen = [other for other in self.tracks if other.time == time]
        likeness = float(track.look @ _normalised(look))
        if likeness < LIKENESS or not _reachable(track, time, points) or coincides(points, seen):
            return False
        track.move(time, points, _normalised(look))
        return True

    def prune(self, time: float) -> None:
        """Let the tracks go that have been unseen for too long."""
        self.tracks = [
            track
            for track in self.tracks
            if time - track.time <= LONGEST_GAP and not self._expired(track, time)
        ]

    @staticmethod
    def _expired(track: Track, time: float) -> bool:
        return track.misses >= MISSES and time - track.detected[0] > LONGEST_GAP


def coincides(points: Floats, tracks: Iterable[Track]) -> bool:
    """Tell whether points (15, 2) are those of one of the tracks."""
    return any(
        np.hypot(*(points - track.points).T).mean() < SAME_FACE * _size(track.points) for track in tracks
    )


def _assign(tracks: list[Track], time: float, boxes: Floats, points: Floats) -> list[tuple[int, Track]]:
    """Give pairs of face and track: the assignment of least cost."""
    from scipy.optimize import linear_sum_assignment

    if not tracks or not len(boxes):
        return []
    costs = np.array([_costs(track, time, boxes, points) for track in tracks])
    possible = np.isfinite(costs)
    rows, columns = linear_sum_assignment(np.where(possible, costs, 1e3))
    return [(int(face), tracks[row]) for row, face in zip(rows, columns, strict=True) if possible[row, face]]


def _costs(track: Track, time: float, boxes: Floats, points: Floats) -> Floats:
    """Give what it costs to take each face (N,) for the track: distance, overlap and shape; else infinity."""
    expected = track.points_at(time)
    overlap = geometry.overlaps(track.box_at(time)[None], boxes)[0]
    distance = np.hypot(*(points.mean(1) - expected.mean(0)).T) / _size(expected)
    cost = distance + (1 - overlap) + _shape_difference(expected, points)
    reachable = np.array([_reachable(track, time, face) for face in points])
    return np.where(reachable, cost, np.inf)


def _shape_difference(expected: Floats, points: Floats) -> Floats:
    """Give how far the points (N, 15, 2) are, in face sizes, from points (15, 2) fitted to them."""
    target = np.asarray(points, np.float64)
    fitted = geometry.apply(geometry.similarity(np.broadcast_to(expected, target.shape), target), expected)
    return np.asarray(np.hypot(*np.moveaxis(target - fitted, -1, 0)).mean(-1) / _size(target))


def _reachable(track: Track, time: float, points: Floats) -> bool:
    expected = track.points_at(time)
    size = _size(expected)
    near = np.hypot(*(points.mean(0) - expected.mean(0))) < REACH * size
    return bool(near and 1 / GROWTH < _size(points) / size < GROWTH)


def _size(points: Floats) -> Any:
    """Give the sizes (...,) of faces from points (..., 15, 2): twice the mean distance from the middle."""
    return 2 * np.linalg.norm(points - points.mean(-2, keepdims=True), axis=-1).mean(-1)


def _normalised(look: NDArray[Any]) -> Floats:
    flat = look.astype(np.float64).ravel()
    flat -= flat.mean()
    return np.asarray(flat / max(float(np.linalg.norm(flat)), 1e-9))


class SceneCuts:
    """Finds where a video cuts to another scene: a small picture of the frame that is unlike the last one."""

    SIDE = 24
    LEAST_CHANGE = 12.0
    """Gray levels, mean: less is no cut, however it correlates (dark and empty frames)."""
    LIKENESS = 0.6

    def __init__(self) -> None:
        self._last: NDArray[np.float64] | None = None

    def __call__(self, gray: NDArray[np.uint8]) -> bool:
        """Take the next frame (H, W) uint8 and tell whether a new scene begins with it."""
        import cv2

        small = cv2.resize(gray, (self.SIDE, self.SIDE), interpolation=cv2.INTER_AREA).astype(np.float64)
        last, self._last = self._last, small
        if last is None:
            return False
        change = float(np.abs(small - last).mean())
        likeness = float(_normalised(small) @ _normalised(last))
        return change > self.LEAST_CHANGE and likeness < self.LIKENESS
