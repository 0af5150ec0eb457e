"""Small datasets of every format, written as people have them, with known labels and points."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from facekit.schema import KEYPOINTS, KEYPOINTS_FROM_IBUG68, MEAN_FACE, MIRROR_PERMUTATION

FACE = (np.array(MEAN_FACE) * 40 + (60.0, 50.0)).astype(np.float32)
"""The mean face in a picture of 120x100, points in the order of KEYPOINTS."""

MTFL_POINTS = ("right_eye_center", "left_eye_center", "nose_tip", "mouth_right_corner", "mouth_left_corner")


def gray(seed: int, side: int = 48) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8)


def save(path: Path, seed: int, size: tuple[int, int] = (120, 100)) -> Path:
    """Write a picture of its own colour pattern, losslessly where the suffix allows it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0]), np.uint8)
    Image.fromarray(noise).save(path)
    return path


def numbers(picture: NDArray[np.uint8]) -> str:
    return " ".join(str(value) for value in picture.ravel())


def fer2013_rows(usages: Sequence[str]) -> list[str]:
    return [f"{row % 7},{numbers(gray(row))},{usage}" for row, usage in enumerate(usages)]


def write_fer2013(path: Path, rows: Sequence[str], header: str = "emotion,pixels,Usage") -> Path:
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


def write_ferplus(path: Path, votes: Sequence[tuple[str, int]]) -> Path:
    """Write FER+ rows of a Usage and the vote column that gets all ten votes."""
    lines = ["Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"]
    for row, (usage, column) in enumerate(votes):
        lines.append(f"{usage},fer{row:07d}.png," + ",".join("10" if k == column else "0" for k in range(10)))
    path.write_text("\n".join(lines) + "\n")
    return path


def ibug68(points: NDArray[np.float32]) -> NDArray[np.float64]:
    """Place 68 points so that KEYPOINTS_FROM_IBUG68 gives `points` again; the others lie at (1, 2)."""
    placed = np.tile([1.0, 2.0], (68, 1))
    for parts, point in reversed(list(zip(KEYPOINTS_FROM_IBUG68, points, strict=True))):
        if len(parts) == 1:
            placed[parts[0]] = point
    for parts, point in zip(KEYPOINTS_FROM_IBUG68[:2], points[:2], strict=True):
        corners = [k for k in parts if (k,) in KEYPOINTS_FROM_IBUG68]
        lids = [k for k in parts if k not in corners]
        placed[lids] = (point * len(parts) - placed[corners].sum(0)) / len(lids)
    return placed


def write_pts(path: Path, points: NDArray[np.float32], header: str = "version: 1\nn_points: 68") -> Path:
    """Write an iBUG file; its numbers count pixels from 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(f"{x:.5f} {y:.5f}" for x, y in ibug68(points) + 1)
    path.write_text(f"{header}\n{{\n{lines}\n}}\n")
    return path


def pts(root: Path) -> Path:
    for place, stem in enumerate(("100_1", "100_2", "indoor_001")):
        save(root / f"{stem}.png", place)
        write_pts(root / f"{stem}.pts", FACE + place)
    return root


def fer2013(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    return write_fer2013(root / "fer2013.csv", fer2013_rows(["Training"] * 4 + ["PublicTest", "PrivateTest"]))


def kaggle_keypoints(root: Path) -> Path:
    """Three rows; the second lacks all points but the eye centres and the nose tip."""
    root.mkdir(parents=True, exist_ok=True)
    lines = [",".join((*(f"{name}_{axis}" for name in KEYPOINTS for axis in "xy"), "Image"))]
    for row in range(3):
        known = {"left_eye_center", "right_eye_center", "nose_tip"} if row == 1 else set(KEYPOINTS)
        cells = [
            f"{value:.4f}" if name in known else ""
            for name, point in zip(KEYPOINTS, FACE - 10 + row, strict=True)
            for value in point
        ]
        lines.append(",".join((*cells, numbers(gray(row, 96)))))
    (root / "training.csv").write_text("\n".join(lines) + "\n")
    return root


def youtube_faces(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for part, people in (("training", ("Al_Gore_00", "Al_Gore_10")), ("test", ("Zhu_Rongji_20",))):
        lines = ["," + ",".join(str(k) for k in range(136))]
        for place, person in enumerate(people):
            save(root / part / f"{person}.jpg", place)
            lines.append(f"{person}.jpg," + ",".join(f"{v:.4f}" for v in ibug68(FACE + place).ravel()))
        (root / f"{part}_frames_keypoints.csv").write_text("\n".join(lines) + "\n")
    return root


def mtfl(root: Path) -> Path:
    names = ("lfw_5590/Al_Gore_0001.jpg", "lfw_5590/Al_Gore_0002.jpg", "net_7876/0_1_0.jpg")
    parts = ("leye", "reye", "nose", "lmouth", "rmouth")
    lines = ["path,split," + ",".join([f"{p}_x" for p in parts] + [f"{p}_y" for p in parts])]
    face = FACE[[KEYPOINTS.index(name) for name in MTFL_POINTS]]
    for place, name in enumerate(names):
        save(root / name, place)
        split = "test" if place == 2 else "train"
        lines.append(f"{name},{split}," + ",".join(f"{v:.4f}" for v in face.T.ravel()))
    (root / "points.csv").write_text("\n".join(lines) + "\n")
    return root


def muxspace(root: Path) -> Path:
    legend = ["user.id,image,emotion"]
    rows = (
        ("Al_Gore_0001.jpg", "happiness"),
        ("Al_Gore_0002.jpg", "ANGER"),
        ("crowd_12x.jpg", "Neutral"),
        ("Al_Gore_0002.jpg", "disgust"),
        ("crowd_12x.jpg", "neutral"),
        ("odd.jpg", "Bored"),
    )
    for place, (name, emotion) in enumerate(rows):
        save(root / "images" / name, place)
        legend.append(f"{600 + place},{name},{emotion}")
    (root / "data").mkdir()
    (root / "data" / "legend.csv").write_text("\n".join(legend) + "\n")
    return root


def raf_db(root: Path, splits: Sequence[str] = ("train", "test")) -> Path:
    for split in splits:
        lines = ["image,label"]
        for number in range(1, 8):
            name = f"{split}_{number:05d}_aligned.jpg"
            save(root / "DATASET" / split / str(number) / name, number, (100, 100))
            lines.append(f"{name},{number}")
        (root / f"{split}_labels.csv").write_text("\n".join(lines) + "\n")
    return root


def class_folders(root: Path) -> Path:
    for place, name in enumerate(("Anger/1.png", "Anger/2.png", "contempt/1.png", "Happiness/x/1.png")):
        save(root / name, place, (64, 64))
    return root


def expw(root: Path) -> Path:
    for place, name in enumerate(
        ("angry/angry_African_112_0.jpg", "happy/angry_African_112_1.jpg", "sad/fierce_boy_13_0.jpg")
    ):
        save(root / name, place, (96, 80))
    return root


def ck_plus(root: Path) -> Path:
    for place, name in enumerate(
        ("anger/S010_004_00000017.png", "anger/S010_004_00000018.png", "happy/S011_006_00000013.png")
    ):
        save(root / name, place, (48, 48))
    return root


def jaffe(root: Path) -> Path:
    for place, name in enumerate(("KA.AN1.39.tiff", "KA.NE2.27.tiff", "YM.SU3.60.tiff")):
        save(root / name, place, (256, 256))
    return root


def facekit_json(root: Path) -> Path:
    """Two faces in one picture and one in another, as `facekit predict --json` writes them."""
    save(root / "a.png", 0)
    save(root / "sub" / "b.png", 1)

    def face(label: str, shift: float) -> dict[str, object]:
        return {
            "box": [40.0 + shift, 30.0, 80.0 + shift, 70.0],
            "score": 0.99,
            "keypoints": {n: p.tolist() for n, p in zip(KEYPOINTS, FACE + shift, strict=True)},
            "sigma": dict.fromkeys(KEYPOINTS, 1.0),
            "expression": {"label": label, "confidence": 0.9, "scores": {}},
        }

    common = {"width": 120, "height": 100, "weights": "default-v1", "error": None}
    pictures = [
        {"image": "a.png", **common, "faces": [face("happy", 0.0), face("sad", 5.0)]},
        {"image": "sub/b.png", **common, "faces": [face("neutral", 1.0)]},
    ]
    (root / "labels.json").write_text(json.dumps(pictures))
    return root / "labels.json"


def swap_names(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Exchange what is called left and right, as a careless labeller does."""
    return points[..., list(MIRROR_PERMUTATION), :]


MAKERS: dict[str, Callable[[Path], Path]] = {
    maker.__name__: maker
    for maker in (
        *(fer2013, kaggle_keypoints, youtube_faces, mtfl, muxspace, raf_db, facekit_json),
        *(pts, jaffe, ck_plus, expw, class_folders),
    )
}
