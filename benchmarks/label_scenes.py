"""Label the faces of whole pictures with YuNet, at several sizes and mirrored, for training the detector.

    python benchmarks/label_scenes.py --labeller YUNET.onnx --out runs/scenes SOURCE...

A SOURCE is a folder of pictures, at any depth, whose name becomes a subfolder's; folders within it become
parts of the pictures' names. The result is a new folder in the form that the detector's training reads (see
facekit.data.detection_scenes): pictures no longer than 640 pixels, and faces.csv.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from facekit import geometry
from facekit.detection import Detections, YuNetDetector
from facekit.images import find_pictures, read_image
from facekit.mirror import mirror_boxes, mirror_image

SIZES = (160, 320, 640, 960, 1280)
"""Longest sides at which a picture is looked at, pixels."""
LONGEST_SIDE = 640
LARGEST_ENLARGEMENT = 2.0
DOUBTFUL = 0.3
"""What scores less is taken for background."""
SAME_FACE = 0.4
"""Boxes of two views that overlap by more show the same face."""


def look(image: NDArray[np.uint8], size: int, detector: YuNetDetector) -> list[Detections]:
    """Detect in a picture brought to a longest side and in its mirror; boxes in the picture's own pixels."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    shape = round(width * scale), round(height * scale)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    seen = cv2.resize(image, shape, interpolation=method)
    reflected = np.ascontiguousarray(mirror_image(seen.transpose(2, 0, 1)).transpose(1, 2, 0))
    plain, mirrored = detector([seen, reflected])
    factor = np.tile([width / shape[0], height / shape[1]], 2).astype(np.float32)
    return [
        Detections(plain.boxes * factor, plain.scores),
        Detections(mirror_boxes(mirrored.boxes, shape[0]) * factor, mirrored.scores),
    ]


def label(image: NDArray[np.uint8], detector: YuNetDetector) -> NDArray[np.float64]:
    """Label one picture.

    A face's box is the mean over the views that show it, weighted by their scores. Its score is the mean over
    its two best sizes, the picture and its mirror: what shows at one size or on one side only counts half.

    Returns
    -------
    (N, 5) float64, image edges x0, y0, x1, y1 and score
    """
    longest = max(image.shape[:2])
    sizes = [size for size in SIZES if size == SIZES[0] or size <= longest * LARGEST_ENLARGEMENT]
    views = [look(image, size, detector) for size in sizes]
    boxes = np.concatenate([view.boxes for pair in views for view in pair])
    scores = np.concatenate([view.scores for pair in views for view in pair])
    size_of = np.concatenate([np.full(len(v), k) for k, pair in enumerate(views) for v in pair])
    faces = []
    left = np.argsort(-scores, kind="stable")
    while len(left):
        same = geometry.overlaps(boxes[left[:1]], boxes[left])[0] > SAME_FACE
        members, left = left[same], left[~same]
        weights = scores[members] ** 2
        box = (boxes[members] * weights[:, None]).sum(0) / weights.sum()
        by_size = [scores[members[size_of[members] == size]][:2].sum() / 2 for size in range(len(sizes))]
        score = np.sort(by_size)[-2:].mean()
        if score >= DOUBTFUL:
            faces.append([*box, score])
    return np.array(faces).reshape(-1, 5)


def shrink(
    image: NDArray[np.uint8], faces: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Bring a picture, with its faces (N, 5), to the size at which scenes are kept."""
    height, width = image.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    if scale >= 1:
        return image, faces
    size = round(width * scale), round(height * scale)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return small, faces * [size[0] / width, size[1] / height, size[0] / width, size[1] / height, 1]


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("--labeller", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quality", type=int, default=85)
    options = parser.parse_args()
    if options.out.exists():
        parser.error(f"--out {options.out}: exists; pictures that lie there already would count as face-free")
    cv2.setNumThreads(1)
    detector = YuNetDetector(options.labeller, min_score=0.3, longest_side=max(SIZES))
    paths = {
        f"{source.name}/{'-'.join(path.relative_to(source).with_suffix('').parts)}.jpg": path
        for source in options.sources
        for path in find_pictures(source)
    }
    rows: list[list[str | float]] = []
    for place, (name, path) in enumerate(paths.items()):
        image = read_image(path)
        image, faces = shrink(image, label(image, detector))
        (options.out / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(options.out / name, quality=options.quality)
        rows += [[name, *np.round(face[:4], 2), round(face[4], 4)] for face in faces]
        if place % 100 == 0:
            print(f"{place} of {len(paths)} pictures, {len(rows)} faces", flush=True)
    with (options.out / "faces.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "x0", "y0", "x1", "y1", "score"])
        writer.writerows(rows)


if __name__ == "__main__":
    main()
