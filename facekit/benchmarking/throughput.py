"""Faces and pictures a second against the batch, in every arithmetic and way of running, beside the floor."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity

from facekit import FaceAnalyzer
from facekit.backends import cores
from facekit.benchmarking.floors import Work, count_work, measure_peaks, with_floor
from facekit.benchmarking.measuring import (
    Case,
    Clock,
    Figure,
    Setting,
    UnavailableError,
    in_turns,
    threads,
    timing,
    value,
)
from facekit.benchmarking.pictures import portrait, write_album
from facekit.benchmarking.stages import Variant, arithmetics, automatic, stage_calls

OPERATIONS = 8
STAGES = ("keypoints", "expression", "both")


def batches(setting: Setting) -> tuple[int, ...]:
    """Give the batch sizes: on a processor nothing is gained beyond some hundreds, and they take minutes."""
    if setting.quick:
        return 1, 64
    return (1, 4, 16, 64, 256) if setting.device.type == "cpu" else (1, 4, 16, 64, 256, 1024, 4096)


def cases(setting: Setting) -> list[Case]:
    """Give both stages by batch and arithmetic, compiled or as graphs, and whole pictures."""
    accelerated, quick = setting.device.type != "cpu", setting.quick
    stages = [
        Case(
            f"stages, batch {batch}",
            10 if quick or accelerated else 15 + 0.5 * batch,
            partial(_stages, setting, batch, arithmetics(setting.device)),
        )
        for batch in batches(setting)
    ]
    compiled = [
        Case(f"{running}, batch {batch}", 60, partial(_running, setting, batch, running))
        for batch in (batches(setting) if accelerated else (1, 64))
        for running in (("compiled", "graph", "compiled graph") if accelerated else ("compiled",))
        if not quick
    ]
    pictures = [
        Case(f"{source}, batch {batch}", 8 if quick else 30, partial(_pictures, setting, source, batch))
        for source in ("arrays", "files", *(("device tensors",) if accelerated else ()))
        for batch in ((16,) if quick else (1, 32, 128))
    ]
    largest = batches(setting)[-1]
    profile = Case(f"profile, batch {largest}", 5, partial(_profile, setting, largest))
    return [*stages, *compiled, profile, *pictures]


def _stages(setting: Setting, batch: int, variants: list[Variant]) -> list[Figure]:
    """Time every variant in turns, and tell how far the automatic one is from the best."""
    chosen = automatic(setting.device)
    with threads(cores()):
        calls = {
            (variant, stage): call
            for variant in variants
            for stage, call in stage_calls(setting.weights, variant, batch, setting.device).items()
        }
        work = {dtype: _work(setting, dtype, batch) for dtype in {variant.dtype for variant in variants}}
        figures, medians = [], {}
        for (variant, stage), taken in _timed(calls, setting).items():
            told = {"batch": batch, "threads": cores(), "automatic": variant == chosen, **variant.setting}
            figure = timing(stage, taken, "faces/s", batch, **told)
            peaks = measure_peaks(setting.device, variant.dtype)
            figures.append(with_floor(figure, work[variant.dtype][stage], peaks, batch))
            medians[variant, stage] = figure["median"]
    if chosen in variants:
        for stage in STAGES:
            best = max(rate for (_, other), rate in medians.items() if other == stage)
            share = medians[chosen, stage] / best
            figures.append(value("automatic of best", share, "share", stage=stage, batch=batch))
    return figures


def _work(setting: Setting, dtype: torch.dtype, batch: int) -> dict[str, Work]:
    """Count each stage's work in a number type, from calls that are neither compiled nor recorded."""
    calls = stage_calls(setting.weights, Variant(dtype), batch, setting.device)
    return {stage: count_work(calls[stage]) for stage in STAGES}


def _running(setting: Setting, batch: int, running: Any) -> list[Figure]:
    return _stages(setting, batch, [Variant(automatic(setting.device).dtype, running=running)])


def _timed(
    calls: dict[tuple[Variant, str], Callable[[], Any]], setting: Setting
) -> dict[tuple[Variant, str], list[float]]:
    names = {f"{variant.name} {stage}": (variant, stage) for variant, stage in calls}
    times = in_turns(
        {name: calls[key] for name, key in names.items()},
        Clock(setting.device),
        seconds=5 if setting.quick else 20,
        least=3 if setting.quick else 7,
        most=50,
        warm_up=1,
    )
    return {names[name]: taken for name, taken in times.items()}


def _profile(setting: Setting, batch: int) -> list[Figure]:
    """Tell in which operations the time of both stages goes, call by call."""
    accelerated = setting.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if accelerated else [])]
    with threads(cores()):
        call = stage_calls(setting.weights, automatic(setting.device), batch, setting.device)["both"]
        with torch.profiler.profile(activities=activities) as profile:
            for _ in range(1 if setting.quick else 5):
                call()
            if accelerated:
                torch.cuda.synchronize(setting.device)
    kind = "self_device_time_total" if accelerated else "self_cpu_time_total"
    # Kernels are listed beside the operations that start them, which hold the same time.
    operations = [event for event in profile.key_averages() if event.device_type == DeviceType.CPU]
    times = {event.key: float(getattr(event, kind)) for event in operations}
    total = sum(times.values())
    return [
        value("where the time goes", times[name] / total, "share", operation=name, batch=batch)
        for name in sorted(times, key=lambda name: -times[name])[:OPERATIONS]
    ]


def _pictures(setting: Setting, source: str, batch: int) -> list[Figure]:
    """Time whole analyses of 640x480 pictures, one face each."""
    analyzer = FaceAnalyzer(str(setting.device), weights=setting.weights, batch_size=batch, backend="torch")
    count = batch if setting.quick else max(batch, 32)
    with tempfile.TemporaryDirectory() as folder, threads(cores()):
        if source == "files":
            pictures: Any = write_album(Path(folder), count)
        else:
            pictures = [portrait(640, 480)] * count
        if source == "device tensors":
            stacked = torch.stack([torch.tensor(picture) for picture in pictures])
            pictures = stacked.permute(0, 3, 1, 2).to(setting.device)
        try:
            times = in_turns(
                {source: lambda: analyzer(pictures)},
                Clock(setting.device),
                seconds=5 if setting.quick else 20,
                least=3,
                most=50,
                warm_up=1,
            )
        except torch.OutOfMemoryError as error:
            raise UnavailableError(f"the batch does not fit into the device's memory: {error}") from error
    return [
        timing(
            "pictures", times[source], "pictures/s", count,
            source=source, batch=batch, threads=cores(), picture="640x480", detector=analyzer.detector.name,
        )
    ]  # fmt: skip
