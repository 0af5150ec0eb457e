"""Runs one face library on one core, in that library's own environment, and answers questions line by line.

    python peer_worker.py NAME CORE

A question is a line of JSON. ``{"ask": "time", "picture": F}`` is answered by ``{"seconds": ...}`` of one
analysis, ``{"ask": "found", "picture": F}`` by what it found, ``{"ask": "labels", "crops": F}`` by
FER2013's label of each face crop. F is a .npy file: a picture (H, W, 3) uint8 RGB or crops (N, 48, 48) uint8.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Picture = Any
ORDER = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


class Fer:
    """The package fer: OpenCV's Haar cascade and a small network trained on FER2013."""

    def __init__(self) -> None:
        self._make = importlib.import_module("fer.fer").FER
        self._whole, self._crops = self._make(), self._make(offsets=(0, 0))

    def prepare(self, picture: Picture) -> Picture:
        """Give what it takes: BGR."""
        return picture[:, :, ::-1].copy()

    def analyze(self, picture: Picture) -> Any:
        """Find faces and emotions."""
        return self._whole.detect_emotions(picture)

    def found(self, result: Any) -> dict[str, Any]:
        """Tell what was found."""
        emotions = [max(face["emotions"], key=face["emotions"].get) for face in result]
        return {"faces": len(result), "points": 0, "expressions": emotions}

    def label(self, crop: Picture) -> str:
        """Name the expression of a whole 48x48 picture, as its training saw it."""
        whole = np.repeat(crop[:, :, None], 3, 2)
        emotions = self._crops.detect_emotions(whole, face_rectangles=[(0, 0, 48, 48)])[0]["emotions"]
        return str(max(emotions, key=emotions.get))


class Mediapipe:
    """Face Mesh of mediapipe: a detector and 478 points; it names no expression."""

    def __init__(self) -> None:
        mesh = importlib.import_module("mediapipe").solutions.face_mesh
        # Pictures that have nothing to do with each other; tracking would skip the detector.
        self._mesh = mesh.FaceMesh(static_image_mode=True, refine_landmarks=True, max_num_faces=5)

    def prepare(self, picture: Picture) -> Picture:
        """Give what it takes: RGB."""
        return picture

    def analyze(self, picture: Picture) -> Any:
        """Find faces and points."""
        return self._mesh.process(picture).multi_face_landmarks or []

    def found(self, result: Any) -> dict[str, Any]:
        """Tell what was found."""
        return {"faces": len(result), "points": len(result[0].landmark) if result else 0, "expressions": []}


class Dlib:
    """dlib's HOG detector and 68 points; it names no expression."""

    def __init__(self) -> None:
        dlib, models = importlib.import_module("dlib"), importlib.import_module("face_recognition_models")
        self._detector = dlib.get_frontal_face_detector()
        self._points = dlib.shape_predictor(models.pose_predictor_model_location())

    def prepare(self, picture: Picture) -> Picture:
        """Give what it takes: RGB."""
        return picture

    def analyze(self, picture: Picture) -> Any:
        """Find faces and points."""
        return [self._points(picture, box) for box in self._detector(picture, 0)]

    def found(self, result: Any) -> dict[str, Any]:
        """Tell what was found."""
        return {"faces": len(result), "points": result[0].num_parts if result else 0, "expressions": []}


class Facekit:
    """facekit itself, with its usual detector."""

    def __init__(self) -> None:
        weights = os.environ.get("FACEKIT_PEER_WEIGHTS", "default")
        importlib.import_module("torch").set_num_threads(1)
        importlib.import_module("cv2").setNumThreads(1)
        make = importlib.import_module("facekit").FaceAnalyzer
        self._analyzer = make("cpu", weights=weights)
        self._crops = make("cpu", "none", weights=weights)

    def prepare(self, picture: Picture) -> Picture:
        """Give what it takes: RGB."""
        return picture

    def analyze(self, picture: Picture) -> Any:
        """Find faces, points and expressions."""
        return self._analyzer(picture)

    def found(self, result: Any) -> dict[str, Any]:
        """Tell what was found."""
        points = len(result[0].keypoints.xy) if result else 0
        return {
            "faces": len(result),
            "points": points,
            "expressions": [face.expression.label for face in result],
        }

    def label(self, crop: Picture) -> str:
        """Name the expression of a 48x48 picture of FER2013, which goes to stage 2 as it is."""
        backend, whole = self._crops.backend, np.array([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
        logits = backend.expression(backend.warp([crop], np.zeros(1, np.int64), whole, 48), ["fer2013"])
        return ORDER[int(logits["fer2013"][0].argmax())]


LIBRARIES: dict[str, Callable[[], Any]] = {
    "facekit": Facekit,
    "fer": Fer,
    "mediapipe": Mediapipe,
    "dlib": Dlib,
}


def answer(library: Any, question: dict[str, Any]) -> dict[str, Any]:
    """Answer one question."""
    if question["ask"] == "labels":
        return {"labels": [library.label(crop) for crop in np.load(question["crops"])]}
    picture = library.prepare(np.load(question["picture"]))
    started = time.perf_counter()
    result = library.analyze(picture)
    seconds = time.perf_counter() - started
    return {"seconds": seconds} if question["ask"] == "time" else library.found(result)


def main() -> None:
    """Answer until there are no more questions."""
    name, core = sys.argv[1:]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core)})
    # Libraries write to stdout as they please; answers keep it for themselves.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    library = LIBRARIES[name]()
    answers.write(json.dumps({"ready": name}) + "\n")
    for line in sys.stdin:
        answers.write(json.dumps(answer(library, json.loads(line))) + "\n")


if __name__ == "__main__":
    main()
