"""Compare facekit's detector with OpenCV's Haar cascades and YuNet: finds, false alarms, speed.

    python benchmarks/detection.py --data $FACEKIT_DATA --scenes runs/scenes --yunet YUNET.onnx

`--data` holds landmarks68/helen_train and detection/afw_scenes, `--scenes` is the folder that
benchmarks/label_scenes.py wrote and the detector was trained on. Only pictures that its training did not see
count. All detectors are compared in one convention, stage 1's square crops, at which they are used. The error
of keypoints (NME) is that of the shipped weights on the held-out Helen faces, none of which they saw either.
Timings are medians over interleaved rounds, with quartiles, on one core. facekit's detector runs as in an
analysis: by ONNX Runtime on the CPU where that is installed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import skimage
import skimage.data
import torch
from numpy.typing import NDArray

from facekit import FaceAnalyzer, evaluate, geometry
from facekit.backends import choose_backend
from facekit.backends.torch import choose_device
from facekit.benchmarking.results import write_result
from facekit.data.catalog import load_dataset
from facekit.data.detection_scenes import FACE, Labels, kinds_of, read_labels
from facekit.data.files import read_rows
from facekit.data.label_boxes import label_boxes
from facekit.data.samples import Dataset
from facekit.detection import (
    BoxFraming,
    Detections,
    Detector,
    FacekitDetector,
    YuNetDetector,
    crop_boxes,
    make_detector,
)
from facekit.detection_metrics import match, reliability
from facekit.detector_network import for_inference
from facekit.images import read_image
from facekit.schema import BOX_FACTOR
from facekit.weights import load_detector

CROP_FROM_LANDMARK_BOX = BoxFraming((0.0, -0.089), 1.28)
"""From the tight box of 68 points; medians: Helen (0.000, -0.088), 1.288; AFW (0.002, -0.090), 1.262."""
FACE_FREE = (
    "brick", "cell", "chelsea", "clock", "coffee", "coins", "colorwheel", "grass", "gravel", "horse",
    "hubble_deep_field", "immunohistochemistry", "logo", "microaneurysms", "moon", "page", "retina", "rocket",
    "text",
)  # fmt: skip
"""Samples of scikit-image that come with it and show no face; none is in the detector's training."""
LOW = 0.01
SCORES = (0.5, 0.7, 0.85)
SIDES = (320, 640, 960)
"""Longest sides to which all pictures are brought, beside the default."""
SHEET_SIDES = (640, 960, 1440)
"""Longest sides to which sheets of four scenes are shrunk."""
BATCH, ROUNDS = 64, 30
"""Of the throughput on an accelerator."""

Image = NDArray[np.uint8]


def face_free_samples() -> dict[str, Image]:
    """Give scikit-image's pictures without a face, as uint8 RGB."""
    samples = {}
    for name in FACE_FREE:
        sample = np.asarray(getattr(skimage.data, name)())
        if sample.dtype == np.bool_:
            sample = sample.astype(np.uint8) * 255
        sample = np.repeat(sample[..., None], 3, 2) if sample.ndim == 2 else sample[..., :3]
        samples[name] = np.ascontiguousarray(sample)
    return samples


def without_faces(image: Image, faces: NDArray[np.float32]) -> Image:
    """Fill every label's box, half as large again, with the picture around it."""
    mask = np.zeros(image.shape[:2], np.uint8)
    for x0, y0, x1, y1 in np.round(geometry.square(faces[:, :4], 1.5)).astype(int):
        mask[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = 255
    return np.asarray(cv2.inpaint(image, mask, 5, cv2.INPAINT_TELEA), np.uint8)


def in_convention(detector: Detector, found: Sequence[Detections]) -> list[NDArray[np.float32]]:
    """Give detections as the boxes that facekit's own detector draws."""
    return [crop_boxes(one.boxes, detector.face_from_box.scaled(BOX_FACTOR)) for one in found]


def figures_of(
    detector: Detector, every: Detector, pointed: dict[str, Any], empty: dict[str, Any]
) -> dict[str, Any]:
    """Measure one detector, at its own threshold and, as `every`, at the lowest."""
    figures: dict[str, Any] = {f"recall_{name}": recall_of(detector, part) for name, part in pointed.items()}
    scenes = pointed["afw_scenes"]
    for name, images in empty.items():
        figures[f"false_positives_{name}"] = alarms_of(detector, images)
    found = every(scenes["images"])
    crops, scores = in_convention(every, found), [one.scores for one in found]
    matched = match(crops, scores, scenes["label_crops"], scenes["doubtful_crops"])
    figures["average_precision"] = round(matched.average_precision(), 4)
    bins, error = reliability(matched.scores, matched.right)
    figures["calibration_error"], figures["reliability"] = round(error, 4), bins
    return figures


def recall_of(detector: Detector, part: dict[str, Any]) -> float:
    """Give the share of faces with landmarks that a detector finds."""
    found = detector(part["images"])
    crops, scores = in_convention(detector, found), [one.scores for one in found]
    matched = match(crops, scores, part["landmark_crops"], [np.zeros((0, 4))] * len(crops))
    return round(matched.recall(0.0), 4)


def alarms_of(detector: Detector, images: Sequence[Image]) -> float:
    """Count the faces a picture that a detector sees where there are none."""
    return round(sum(map(len, detector(list(images)))) / len(images), 4)


def keypoint_errors(
    dataset: Dataset, analyzer: FaceAnalyzer, detectors: Sequence[Detector]
) -> dict[str, Any]:
    """Measure the error of keypoints under the boxes of labels and of detectors, on the faces found."""
    labelled = evaluate(dataset, boxes="labels", analyzer=analyzer).errors
    figures: dict[str, Any] = {}
    for detector in detectors:
        analyzer.detector = detector
        errors = evaluate(dataset, boxes="detector", analyzer=analyzer).errors
        both = np.isfinite(errors) & np.isfinite(labelled)
        figures[detector.name] = {
            "n": int(both.sum()),
            "undetected": int(np.isinf(errors).sum()),
            "nme": round(float(errors[both].mean()), 5),
            "nme_label_boxes": round(float(labelled[both].mean()), 5),
            "ratio": round(float(errors[both].mean() / labelled[both].mean()), 4),
        }
    return figures


def scenes_of(labels: Labels, data: Path) -> dict[str, Any]:
    """Give the held-out AFW scenes with landmark crops, labels and doubtful labels, as stage 1's crops."""
    landmarks: dict[str, list[list[float]]] = {}
    folder = data / "detection" / "afw_scenes"
    for _, cells in read_rows(folder / "landmark_boxes.csv", ("image", "x0", "y0", "x1", "y1")):
        box = [float(cells[column]) for column in ("x0", "y0", "x1", "y1")]
        landmarks.setdefault(Path(cells["image"]).stem, []).append(box)
    places = [k for k, path in enumerate(labels.paths) if path.parent.name == "afw_scenes"]
    images, tight, faces = [], [], []
    for place in places:
        path = labels.paths[place]
        whole = read_image(folder / f"{path.stem}.jpg")
        scale = whole.shape[1] / read_image(path).shape[1]
        images.append(whole)
        tight.append(np.array(landmarks.get(path.stem, []), np.float32).reshape(-1, 4))
        faces.append(labels.faces[place] * np.float32([scale, scale, scale, scale, 1]))
    labelled = [
        (crop_boxes(own[:, :4], YuNetDetector.face_from_box.scaled(BOX_FACTOR)), kinds_of(own) == FACE)
        for own in faces
    ]
    return {
        "images": images,
        "landmark_crops": [crop_boxes(boxes, CROP_FROM_LANDMARK_BOX) for boxes in tight],
        "label_crops": [crops[sure] for crops, sure in labelled],
        "doubtful_crops": [crops[~sure] for crops, sure in labelled],
        "faces": faces,
    }


def groups_of(data: Path) -> dict[str, Any]:
    """Give dlib's group photos with the crops that 68 points imply; training saw none."""
    folder, images, tight = data / "detection" / "dlib_faces", [], []
    for table in sorted(folder.glob("*.xml")):
        for photo in ElementTree.parse(table).iter("image"):
            faces = [[(int(part.get("x")), int(part.get("y"))) for part in box] for box in photo.iter("box")]
            points = np.array(faces, np.float32) + 0.5
            images.append(read_image(folder / photo.attrib["file"]))
            tight.append(np.concatenate([points.min(1), points.max(1)], -1))
    return {
        "images": images,
        "landmark_crops": [crop_boxes(boxes, CROP_FROM_LANDMARK_BOX) for boxes in tight],
    }


def sheets_of(scenes: dict[str, Any]) -> tuple[list[Image], list[NDArray[np.float32]]]:
    """Give pictures of many people: held-out scenes four at a time, with their labels as stage 1's crops."""
    side = max(max(image.shape[:2]) for image in scenes["images"])
    sheets, crops = [], []
    for start in range(0, len(scenes["images"]) - 3, 4):
        sheet, own = np.zeros((2 * side, 2 * side, 3), np.uint8), []
        for place in range(4):
            image, (y, x) = scenes["images"][start + place], (place // 2 * side, place % 2 * side)
            sheet[y : y + image.shape[0], x : x + image.shape[1]] = image
            own.append(scenes["label_crops"][start + place] + np.float32([x, y, x, y]))
        sheets.append(sheet)
        crops.append(np.concatenate(own))
    return sheets, crops


def on_sheets(detectors: dict[str, Detector], scenes: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Count the labelled faces that detectors find on sheets of four scenes, and time one sheet."""
    sheets, crops = sheets_of(scenes)
    taken = timings(detectors, rounds, [sheets[0].shape[1::-1]])
    result: dict[str, Any] = {}
    for name, detector in detectors.items():
        found = detector(sheets)
        matched = match(
            in_convention(detector, found),
            [one.scores for one in found],
            crops,
            [np.zeros((0, 4))] * len(sheets),
        )
        (times,) = taken[name].values()
        faces = sum(map(len, crops))
        result[name] = {"faces": faces, "recall": round(matched.recall(0.0), 4), "one_core": times}
    return result


def helen_of(held_out: set[str], data: Path) -> tuple[Dataset, dict[str, Any]]:
    """Give the held-out Helen faces."""
    dataset = load_dataset(data / "landmarks68" / "helen_train")
    dataset = dataset.select(
        np.array([f"helen_train/{Path(source).stem}" in held_out for source in dataset.sources])
    )
    assert dataset.points is not None
    crops = geometry.square(label_boxes(dataset.points), BOX_FACTOR)
    images = [dataset.load(place) for place in range(len(dataset))]
    return dataset, {"images": images, "landmark_crops": list(crops[:, None])}


def timings(
    detectors: dict[str, Detector],
    rounds: int,
    sizes: Sequence[tuple[int, int]] = ((640, 480), (512, 512), (320, 320)),
) -> dict[str, Any]:
    """Time the detectors in turns on one picture at three sizes."""
    astronaut = skimage.data.astronaut()
    result: dict[str, Any] = {}
    for width, height in sizes:
        picture = cv2.resize(astronaut, (width, height), interpolation=cv2.INTER_AREA)
        taken: dict[str, list[float]] = {name: [] for name in detectors}
        for _ in range(rounds + 3):
            for name, detector in detectors.items():
                started = time.perf_counter()
                detector([picture])
                taken[name].append((time.perf_counter() - started) * 1e3)
        for name, times in taken.items():
            low, middle, high = np.percentile(times[3:], [25, 50, 75])
            result.setdefault(name, {})[f"{width}x{height}"] = {
                "median_ms": round(middle, 3), "q1_ms": round(low, 3), "q3_ms": round(high, 3),
                "best_ms": round(min(times[3:]), 3),
            }  # fmt: skip
    return result


def throughput(weights: str, device: str) -> dict[str, Any] | None:
    """Measure 640x480 pictures a second on an accelerator: whole calls, the network alone, its limits."""
    on = choose_device(device)
    if on.type != "cuda":
        return None
    detector = FacekitDetector(weights, device=device, batch_size=BATCH)
    picture = cv2.resize(skimage.data.astronaut(), (640, 480), interpolation=cv2.INTER_AREA)
    pictures = [picture] * BATCH
    resident = torch.zeros(BATCH, 3, 480, 640, device=on).to(memory_format=torch.channels_last)
    network = for_inference(load_detector(weights)[0]).to(on).to(memory_format=torch.channels_last)
    moved, multiplied = _cost(network, resident[:1])

    def rate(call: Any) -> float:
        for _ in range(3):
            call()
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(ROUNDS):
            call()
        torch.cuda.synchronize()
        return BATCH * ROUNDS / (time.perf_counter() - started)

    with torch.inference_mode():
        alone = rate(lambda: network(resident))
    source = torch.empty(1 << 28, device=on)
    target = torch.empty_like(source)
    bandwidth = rate(lambda: target.copy_(source)) / BATCH * source.numel() * 4 * 2
    return {
        "batch": BATCH,
        "size": "640x480",
        "pictures_per_second": round(rate(lambda: detector(pictures)), 1),
        "network_pictures_per_second": round(alone, 1),
        "bytes_a_picture": moved,
        "multiplications_a_picture": multiplied,
        "copy_bytes_per_second": round(bandwidth),
        "share_of_memory_bandwidth": round(alone * moved / bandwidth, 4),
    }


def _cost(network: torch.nn.Module, picture: torch.Tensor) -> tuple[int, int]:
    """Count the bytes that convolutions must read and write and their multiplications, for one picture."""
    moved, multiplied = 0, 0

    def count(module: Any, inputs: Any, output: torch.Tensor) -> None:
        nonlocal moved, multiplied
        moved += (inputs[0].numel() + output.numel()) * output.element_size()
        multiplied += output.numel() * module.weight[0].numel()

    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    hooks = [module.register_forward_hook(count) for module in convolutions]
    with torch.inference_mode():
        network(picture)
    for hook in hooks:
        hook.remove()
    return moved, multiplied


def main() -> None:
    """Write the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--yunet", type=Path, required=True)
    parser.add_argument("--weights", default="detector")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _, header = load_detector(options.weights)
    analyzer = FaceAnalyzer(options.device, precision="fp32")
    held_out = set(header["data"]["held_out"])
    labels = read_labels([options.scenes])
    seen = np.array([f"{path.parent.name}/{path.stem}" not in held_out for path in labels.paths])
    scenes = scenes_of(labels.select(~seen), options.data)
    helen_faces, helen = helen_of(held_out, options.data)
    masked = [without_faces(*pair) for pair in zip(scenes["images"], scenes["faces"], strict=True)]
    groups = groups_of(options.data)
    pointed = {"afw_scenes": scenes, "helen": helen, "group_photos": groups}
    empty = {"face_free": list(face_free_samples().values()), "masked_scenes": masked}

    backend, _ = choose_backend("auto", "default", options.device, "auto")

    def make(name: str, min_score: float | None = None) -> Detector:
        model = {"yunet": options.yunet, "facekit": options.weights}.get(name)
        return make_detector(name, model, min_score=min_score, device=options.device, backend=backend)

    names = ("haar", "yunet", "facekit")
    result: dict[str, Any] = {
        "weights": header["name"],
        "backend": backend,
        "pictures": {
            "afw_scenes": len(scenes["images"]),
            "afw_landmark_faces": sum(map(len, scenes["landmark_crops"])),
            "afw_labelled_faces": sum(map(len, scenes["label_crops"])),
            "helen": len(helen["images"]),
            "group_photos": len(groups["images"]),
            "group_photo_faces": sum(map(len, groups["landmark_crops"])),
            **{name: len(images) for name, images in empty.items()},
        },
        "detectors": {name: figures_of(make(name), make(name, LOW), pointed, empty) for name in names},
    }
    unseen = analyzer.backend.header["data"]["helen_train"]["held_out_rows"]
    result["keypoints"] = keypoint_errors(
        helen_faces.select(np.isin(helen_faces.rows, unseen)), analyzer, [make(name) for name in names]
    )
    # Of each half of the detections under the fit to the other half.
    result["reliability"] = {"bins": header["reliability"], "error": round(header["calibration_error"], 4)}
    every = make("facekit", LOW)
    result["by_min_score"] = {
        str(score): figures_of(make("facekit", score), every, pointed, empty) for score in SCORES
    }
    by_side = {
        side: [
            FacekitDetector(options.weights, score, side, side, device=options.device, backend=backend)
            for score in (None, LOW)
        ]
        for side in SIDES
    }
    taken = timings({str(side): one for side, (one, _) in by_side.items()}, options.rounds, [(640, 480)])
    result["by_side"] = {
        str(side): {**figures_of(one, low, pointed, empty), "one_core": taken[str(side)]}
        for side, (one, low) in by_side.items()
    }
    by_limit = {
        str(side): FacekitDetector(options.weights, longest_side=side, device=options.device, backend=backend)
        for side in SHEET_SIDES
    }
    result["sheets"] = on_sheets(by_limit, scenes, options.rounds)
    for name, taken in timings({name: make(name) for name in names}, options.rounds).items():
        result["detectors"][name]["one_core"] = taken
    result["throughput"] = throughput(options.weights, options.device)
    command = "python benchmarks/detection.py --data DATA --scenes runs/scenes --yunet YUNET.onnx"
    print(write_result("detection", options.device, command, result))


if __name__ == "__main__":
    main()
