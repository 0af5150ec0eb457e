"""Videos: what smoothing does to jitter, lag and error, how fast frames go through, how memory grows.

    python benchmarks/video.py [--parts smoothing speed memory pictures] [--frames N] [--clips DIR]

smoothing
    NASA's portrait (scikit-image's astronaut) is moved over the picture along known paths, with sensor noise,
    flicker and MPEG-4's losses, and goes through `analyze_video(raw=True)`. What FaceSmoother makes of that
    is compared with the truth. Jitter: root mean square of what the error changes from frame to frame. Lag:
    the delay, in frames, at which the truth fits best. Clips of real faces (--clips, by default the folder
    `videos` of FACEKIT_DATA) have no truth: their jitter is the root mean square distance from a parabola
    through seven frames around each, over all frames and over the third in which the face moves least; lag
    is against what was not smoothed.
speed
    Frames a second of `analyze_video` for detection in every frame, every 5th and every 10th.
memory
    A clip repeated to so many frames is analysed, drawn, encoded and listed; resident memory after 500 frames
    and the most after that.
pictures
    No measurement: the pictures of docs/video.md, of the portrait moving, covered for a while, and cut.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from scipy.signal import savgol_filter
from skimage.data import astronaut

from facekit import FaceAnalyzer, analyze_video, geometry
from facekit.benchmarking.results import write_result
from facekit.decoding import Video
from facekit.encoding import written_video
from facekit.smoothing import FaceSmoother
from facekit.timeline import Timeline

RATE, SECONDS = 25, 6
SIZE = 320, 240
FACE = 224.0, 118.0
"""Where the astronaut's face is, pixels of the whole portrait."""
FACE_SIZE = 85.0
SPEED_FRAMES = 200
SETTLED = 12
"""Frames at the start that do not count: a filter has to start somewhere."""

Pose = tuple[float, float, float, float]
"""Right and down, face sizes; scale; turn, radians."""

PATHS: dict[str, Callable[[float], Pose]] = {
    "rest": lambda _: (0, 0, 1, 0),
    "sway": lambda t: (0.5 * wave(0.5 * t), 0.15 * wave(0.7 * t), 1, 0.15 * wave(0.4 * t)),
    "walk": lambda t: (0.5 * float(np.clip(t - 2, 0, 2)) - 0.5, 0, 1, 0),
    "nod": lambda t: (0, 0.12 * wave(1.5 * t), 1, 0),
    "zoom": lambda t: (0, 0, 1 + 0.25 * wave(0.3 * t), 0),
}


def wave(turns: float) -> float:
    return float(np.sin(2 * np.pi * turns))


def view_from_portrait(pose: Pose) -> np.ndarray:
    """Give the matrix (2, 3) that puts the portrait's face at a pose in the view."""
    right, down, scale, turn = pose
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    middle = np.array(SIZE) / 2 + FACE_SIZE * np.array([right, down])
    return np.column_stack([linear, middle - linear @ FACE])


def moving_face(path: Callable[[float], Pose], target: Path) -> list[np.ndarray]:
    """Write the portrait moving along a path; give its matrices, one a frame."""
    random, portrait = np.random.default_rng(0), astronaut()
    matrices = [view_from_portrait(path(frame / RATE)) for frame in range(RATE * SECONDS)]
    with written_video(target, RATE) as write:
        for frame, matrix in enumerate(matrices):
            view = cv2.warpAffine(portrait, matrix, SIZE, borderMode=cv2.BORDER_REFLECT).astype(float)
            view = view * (1 + 0.02 * random.standard_normal()) + random.normal(0, 5, view.shape)
            write(np.clip(view, 0, 255).astype(np.uint8), frame / RATE)
    return matrices


class Series:
    """One face over the frames in which it was found, as seen and as smoothed."""

    def __init__(self, path: Path, analyzer: FaceAnalyzer) -> None:
        places, seen, smooth = [], [], []
        smoother = FaceSmoother()
        for faces in analyze_video(path, raw=True, analyzer=analyzer):
            face = next((face for face in faces if face.id == 1), None)
            if face is None:
                continue
            scores = np.array([*face.expression.scores.values()])
            points, sigma = face.keypoints.xy, face.keypoints.sigma
            places.append(faces.frame)
            seen.append((face.box, points, scores))
            smooth.append(smoother(faces.time, face.box, points, sigma, scores))
        self.frames = np.array(places)
        self.seen, self.smooth = (
            dict(zip(("box", "points", "scores"), map(np.array, zip(*rows, strict=True)), strict=True))
            for rows in (seen, smooth)
        )


def against_truth(series: Series, matrices: list[np.ndarray]) -> dict[str, Any]:
    """Compare a face on a known path, as seen and as smoothed, with the truth."""
    view = np.array(matrices)[series.frames]
    points = series.seen["points"].astype(np.float64)
    portrait = geometry.apply(geometry.invert(view), points).mean(0)
    truth = geometry.apply(view, np.broadcast_to(portrait, points.shape))
    centre = geometry.apply(view, np.broadcast_to(np.array([[FACE]]), (len(view), 1, 2)))
    result: dict[str, Any] = {"frames": len(points)}
    for name, places in (("raw", series.seen), ("smoothed", series.smooth)):
        box = ((places["box"][:, :2] + places["box"][:, 2:]) / 2)[:, None]
        result[name] = {
            "jitter_px": jitter(places["points"] - truth),
            "error_px": rms((places["points"] - truth)[SETTLED:]),
            "lag_frames": lag(places["points"], truth),
            "box_jitter_px": jitter(box - centre),
            "box_lag_frames": lag(box, centre),
            "score_jitter": jitter(places["scores"]),
        }
    return result


def on_clip(series: Series) -> dict[str, Any]:
    """Tell what smoothing does to a clip without truth."""
    size = np.sqrt(geometry.areas(series.seen["box"])).mean()
    path = savgol_filter(series.seen["points"].mean(1, dtype=np.float64), 13, 1, axis=0)
    speed = np.hypot(*np.gradient(path, axis=0).T)[SETTLED:] * RATE / size
    limit = np.quantile(speed, 1 / 3)
    result: dict[str, Any] = {
        "frames": len(series.frames),
        "slow_below_face_sizes_per_s": round(float(limit), 3),
    }
    for name, places in (("raw", series.seen), ("smoothed", series.smooth)):
        result[name] = {}
        for kind, values in places.items():
            rough = (values - savgol_filter(values.astype(np.float64), 7, 2, axis=0))[SETTLED:]
            result[name] |= {f"{kind}_jitter": rms(rough), f"{kind}_jitter_slow": rms(rough[speed <= limit])}
    result["smoothed"]["lag_frames"] = lag(series.smooth["points"], series.seen["points"])
    return result


def rms(values: np.ndarray) -> float:
    return round(float(np.sqrt((np.asarray(values, np.float64) ** 2).mean())), 4)


def jitter(errors: np.ndarray) -> float:
    return rms(np.diff(errors, axis=0)[SETTLED:])


def lag(places: np.ndarray, truth: np.ndarray) -> float | None:
    """Give the delay, in frames, at which the truth fits places best; None where nothing moves."""
    count = len(truth)
    places, truth = places.reshape(count, -1), truth.reshape(count, -1)
    if np.ptp(truth, axis=0).max() < 1:
        return None
    delays = np.arange(0, 6, 0.05)
    at = np.arange(2 * SETTLED, count)
    misfits = []
    for delay in delays:
        late = np.column_stack([np.interp(at - delay, np.arange(count), column) for column in truth.T])
        misfits.append(((places[at] - late) - (places[at] - late).mean(0)).std())
    return round(float(delays[int(np.argmin(misfits))]), 2)


def measure_smoothing(clips: list[Path]) -> dict[str, Any]:
    analyzer = FaceAnalyzer(device="cpu")
    result: dict[str, Any] = {"synthetic": {}, "clips": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name, path in PATHS.items():
            target = Path(folder, f"{name}.mp4")
            matrices = moving_face(path, target)
            result["synthetic"][name] = against_truth(Series(target, analyzer), matrices)
            show(name, result["synthetic"][name])
    for clip in clips:
        result["clips"][clip.name] = on_clip(Series(clip, analyzer))
        show(clip.name, result["clips"][clip.name])
    return result


def show(name: str, figures: dict[str, Any]) -> None:
    """Print raw and smoothed figures side by side."""
    print(f"{name}, {figures['frames']} frames")
    for key, after in figures["smoothed"].items():
        before = figures["raw"].get(key)
        change = "" if not before or "lag" in key else f"  {after / before - 1:+.0%}"
        print(f"  {key:22} {before!s:>8} -> {after!s:<8}{change}")


def measure_speed(clips: list[Path]) -> dict[str, Any]:
    analyzer = FaceAnalyzer(device="cpu")
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        sway = Path(folder, "astronaut 320x240.mp4")
        moving_face(PATHS["sway"], sway)
        for clip in (sway, *clips):
            for every in (1, 5, 10):
                found = analyze_video(clip, every=every, analyzer=analyzer)
                next(found)  # the first frame waits for all that is made once
                start, count = time.perf_counter(), sum(1 for _ in islice(found, SPEED_FRAMES))
                rate = count / (time.perf_counter() - start)
                found.close()
                result.setdefault(clip.name, {})[f"every {every}"] = {"frames_per_s": round(rate, 2)}
                print(f"{clip.name:32} every {every:2}  {rate:7.1f} frames/s")
    return {"threads": torch.get_num_threads(), "clips": result}


def repeated(clip: Path, count: int, target: Path) -> None:
    """Write a clip over and over until there are so many frames."""
    pictures = [frame.image for frame in Video(clip).frames() if frame.image is not None]
    with written_video(target, RATE) as write:
        for frame, picture in enumerate(islice(cycle(pictures), count)):
            write(picture, frame / RATE)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure_memory(clip: Path | None, count: int) -> dict[str, Any]:
    """Follow resident memory while a long video is analysed and written; a sample every hundred frames."""
    analyzer, timeline = FaceAnalyzer(device="cpu"), Timeline()
    samples: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if clip is None:
            clip = folder / "portrait.mp4"
            moving_face(PATHS["sway"], clip)
        repeated(clip, count, folder / "long.mp4")
        with written_video(folder / "out.mp4", RATE) as write, (folder / "out.jsonl").open("w") as lines:
            for faces in analyze_video(folder / "long.mp4", every=10, analyzer=analyzer):
                write(faces.draw(), faces.time)
                lines.write(faces.to_json() + "\n")
                timeline.add(faces.time, [(face.id, face) for face in faces])
                if faces.frame % 100 == 0:
                    samples.append((faces.frame, round(resident_mb(), 1)))
                    print(f"\r{faces.frame} frames, {samples[-1][1]} MB", end="", flush=True)
    print()
    start = next(size for frame, size in samples if frame >= min(500, count // 2))
    most = max(size for frame, size in samples if frame >= min(500, count // 2))
    return {
        "frames": count,
        "after_500_mb": start,
        "most_after_mb": most,
        "growth_mb": round(most - start, 1),
        "samples": samples[:: max(1, len(samples) // 50)],
    }


def draw_pictures(folder: Path) -> None:
    """Draw a frame and the timeline of six seconds: sway, a board before the face at 2 s, a cut at 4 s."""
    portrait, timeline = astronaut(), Timeline()
    with tempfile.TemporaryDirectory() as place:
        clip = Path(place, "portrait.mp4")
        with written_video(clip, RATE) as write:
            for frame in range(RATE * 6):
                now = frame / RATE
                matrix = view_from_portrait(PATHS["sway"](now) if now < 4 else (0.1, 0, 1.2, -0.35))
                source = portrait if now < 4 else np.ascontiguousarray(portrait[:, :, ::-1])
                view = cv2.warpAffine(source, matrix, SIZE, borderMode=cv2.BORDER_REFLECT)
                if 2 <= now < 2.6:
                    x, y = (matrix[:, :2] @ FACE + matrix[:, 2]).astype(int)
                    view[max(0, y - 60) : y + 60, max(0, x - 50) : x + 50] = 96
                write(np.asarray(view, np.uint8), now)
        for faces in analyze_video(clip, every=5, analyzer=FaceAnalyzer(device="cpu")):
            timeline.add(faces.time, [(face.id, face) for face in faces])
            if faces.frame == 40:
                bgr = cv2.cvtColor(faces.draw(), cv2.COLOR_RGB2BGR)
                cv2.imwrite(str(folder / "video-frame.png"), bgr)
    timeline.plot().savefig(folder / "video-timeline.png", dpi=110)


def clips_in(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield from sorted(path for path in folder.iterdir() if path.suffix in (".avi", ".mp4"))


def main() -> None:
    """Measure and write a results file for each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    kinds = ("smoothing", "speed", "memory", "pictures")
    parser.add_argument("--parts", nargs="+", choices=kinds, default=["smoothing", "speed"])
    parser.add_argument("--frames", type=int, default=20_000)
    data = os.environ.get("FACEKIT_DATA")
    parser.add_argument("--clips", type=Path, default=Path(data, "videos") if data else None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    clips = [*clips_in(arguments.clips)]
    command = "python benchmarks/video.py --parts"
    if "smoothing" in arguments.parts:
        print(write_result("video-smoothing", "cpu", f"{command} smoothing", measure_smoothing(clips)))
    if "speed" in arguments.parts:
        print(write_result("video-speed", "cpu", f"{command} speed", measure_speed(clips)))
    if "pictures" in arguments.parts:
        draw_pictures(Path(__file__).parents[1] / "docs" / "images")
    if "memory" in arguments.parts:
        body = measure_memory(clips[0] if clips else None, arguments.frames)
        print(write_result("video-memory", "cpu", f"{command} memory --frames {arguments.frames}", body))


if __name__ == "__main__":
    main()
