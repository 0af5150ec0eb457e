"""Smoothing over time: One-Euro filters for points and boxes, weighted by sigma, and a mean for scores.

References
----------
.. [1] G. Casiez, N. Roussel, D. Vogel, "1 Euro Filter: A Simple Speed-based Low-pass Filter for Noisy Input
   in Interactive Systems", CHI 2012.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit import geometry
from facekit.geometry import Floats

# Chosen on synthetic motion of a real face, at rest and moving, and looked at on clips: benchmarks/video.py.
POINT_CUTOFF, BOX_CUTOFF = 0.4, 0.15
"""Hz: how slowly a point of USUAL_SIGMA and a box are followed at rest; boxes jitter more."""

POINT_SLOPE, BOX_SLOPE = 14.0, 14.0
"""Hz for each face size a second: how much faster a moving point or box is followed."""

SPEED_CUTOFF = 2.0
"""Hz, of the low-pass that velocities go through."""

USUAL_SIGMA = 0.02
"""In face sizes: the expected error of a keypoint of weight 1."""

WEIGHTS = 0.25, 4.0
"""The least and the largest weight that sigma can give a point."""

SCORES_CUTOFF = 0.8
"""Hz, of the mean of expression probabilities: about a fifth of a second."""


def share(cutoff: Any, elapsed: float) -> Any:
    """Give the weight of the newest value in a low-pass of `cutoff` Hz, `elapsed` seconds after the last."""
    turn = 2 * math.pi * elapsed * cutoff
    return turn / (turn + 1)


class FaceSmoother:
    """Smooths one face over time: places by One-Euro filters [1]_, probabilities by a running mean.

    All cutoffs rise with the face's speed, measured by its keypoints in face sizes a second, so that nothing
    depends on the size of a face or on the frame rate. The less certain a point, the slower it is at rest.
    """

    def __init__(self) -> None:
        self._time: float | None = None
        self._seen = self._velocity = self._points = np.zeros((15, 2))
        self._box, self._scores = np.zeros(4), np.zeros(0)

    def __call__(
        self, time: float, box: Floats, points: Floats, sigma: Floats, scores: Floats
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Take what was seen at a time and give what to believe.

        Parameters
        ----------
        time : float
            Seconds, larger than at the last call.
        box : (4,) float, image edges
        points : (15, 2) float, image pixels
        sigma : (15,) float, image pixels
        scores : (C,) float, probabilities

        Returns
        -------
        box (4,), points (15, 2), scores (C,), float32
        """
        seen = np.asarray(points, np.float64)
        if self._time is None:
            self._points = seen
            self._box, self._scores = box.astype(np.float64), scores.astype(np.float64)
        else:
            self._follow(time - self._time, box, seen, sigma, scores)
        self._time, self._seen = time, seen
        return (
            self._box.astype(np.float32),
            self._points.astype(np.float32),
            self._scores.astype(np.float32),
        )

    def _follow(self, elapsed: float, box: Floats, seen: Floats, sigma: Floats, scores: Floats) -> None:
        size = float(np.sqrt(geometry.areas(box)))
        change = (seen - self._seen) / elapsed / size
        self._velocity = self._velocity + share(SPEED_CUTOFF, elapsed) * (change - self._velocity)
        speed = np.hypot(*self._velocity.T)
        weight = np.clip(USUAL_SIGMA * size / sigma, *WEIGHTS)
        cutoff = POINT_CUTOFF * weight + POINT_SLOPE * speed
        self._points = self._points + share(cutoff, elapsed)[:, None] * (seen - self._points)
        pace = float(np.hypot(*self._velocity.mean(0)))
        self._box = self._box + share(BOX_CUTOFF + BOX_SLOPE * pace, elapsed) * (box - self._box)
        self._scores = self._scores + share(SCORES_CUTOFF, elapsed) * (scores - self._scores)
