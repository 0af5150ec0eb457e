"""The plots that pages show of results files, by name; a new one is a function and a line."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import charts
from cells import SETS, Result, by, figures

Find = Callable[[str, str], Result | None]
"""Gives the newest full result of a suite on "cpu" or on an "accelerator"."""

LEAST = 10
"""Faces that a bin of the reliability diagram must have to be shown."""


def short_caption(result: Result) -> str:
    """Tell what a plot was measured on."""
    machine = result["machine"]
    return f"{machine['accelerator'] or machine['processor']}, {result['date']}"


def plot_reliability(find: Find) -> str | None:
    """Draw how often answers are right by how sure they are, a line a set."""
    result = find("accuracy", "cpu")
    if result is None:
        return None
    series = {
        figure["name"]: [(told["confidence"], told["accuracy"]) for told in bins if told["n"] >= LEAST]
        for figure in result["figures"]
        if figure["name"] in SETS and (bins := figure["evaluation"].get("reliability"))
    }
    if not series:
        return None
    return charts.lines(
        "Are confidences what they say?",
        f"Bins of 15 with at least {LEAST} faces; {short_caption(result)}",
        ("confidence", "share of right answers"),
        {**series, "as stated": [(0.2, 0.2), (1, 1)]},
        dashed=lambda name: name == "as stated",
    )


def plot_peers(find: Find) -> str | None:
    """Draw the libraries' times on one picture."""
    result = find("peers", "cpu")
    if result is None:
        return None
    rows = [
        (
            f"{figure['setting']['library']}{'' if figure['found']['expressions'] else ' (no expression)'}",
            figure["median"],
            tuple(figure["quartiles"]),
        )
        for figure in figures(result, "whole picture", picture="512x512")
    ]
    note = f"Median and quartiles, one core, in turns in one run; {short_caption(result)}"
    rows.sort(key=lambda row: not row[0].startswith("facekit"))
    return charts.bars("One 512x512 picture, one face, start to end", note, "ms", rows)


def plot_throughput(find: Find) -> str | None:
    """Draw both stages' rates against the batch, each beside its floor."""
    result = find("throughput", "accelerator") or find("throughput", "cpu")
    if result is None:
        return None
    shown = figures(result, "both", automatic=True)
    shown += [figure for figure in figures(result, "both") if figure["setting"]["running"] != "eager"]
    shown += [
        figure
        for figure in figures(result, "both", precision="fp32", layout="channels_last", running="eager")
        if figure not in shown
    ]
    series: dict[str, list[charts.Point]] = {}
    floor: dict[float, float] = {}
    for figure in shown:
        name, batch = by("precision", "running")(figure), figure["setting"]["batch"]
        series.setdefault(name, []).append((batch, figure["median"]))
        if figure["setting"]["automatic"]:
            floor[batch] = figure["floor"]["rate"]
    series["limit of the hardware"] = sorted(floor.items())
    return charts.lines(
        "Both stages: faces a second by batch",
        f"From crops that lie on the device; {short_caption(result)}",
        ("batch", "faces/s"),
        {name: points for name, points in series.items() if points},
        log=(True, True),
        dashed=lambda name: name.startswith("limit"),
    )


def plot_scaling(find: Find) -> str | None:
    """Draw a picture's cost against how many there are."""
    result = find("scaling", "cpu")
    if result is None:
        return None
    shown = figures(result, "time a picture")
    points = [(figure["setting"]["pictures"], figure["value"]) for figure in shown]
    return charts.lines(
        "A picture's cost by the number of pictures",
        f"640x480 JPEG files; {short_caption(result)}",
        ("pictures", "ms a picture"),
        {"ms a picture": points},
        log=(True, True),
    )


def plot_accuracy_latency(find: Find) -> str | None:
    """Draw accuracy against time of the shared network, of peers, and of the baselines."""
    peers_of, baselines = find("peers", "cpu"), find("baselines", "cpu")
    points: list[tuple[str, float, float, int]] = []
    for figure in figures(peers_of, "FER2013 PublicTest") if peers_of else ():
        name = figure["setting"]["library"]
        times = figures(peers_of or {}, "whole picture", library=name, picture="512x512")
        if figure["value"] is not None and times:
            label = f"{name}, detection included"
            points.append((label, times[0]["median"], 100 * figure["value"], 0 if name == "facekit" else 1))
    for figure in figures(baselines, "baseline") if baselines else ():
        told = figure["setting"]
        shared = told["arch"].startswith("shared")
        points.append((told["arch"], told["latency_ms"], 100 * figure["value"], 0 if shared else 2))
    if not points:
        return None
    first = peers_of or baselines
    assert first is not None
    return charts.scatter(
        "FER2013 PublicTest accuracy by time, one core",
        f"Left and up is better; {short_caption(first)}",
        ("ms a face", "accuracy, %"),
        points,
        log=(True, False),
    )


def plot_time_to_accuracy(find: Find) -> str | None:
    """Draw PublicTest accuracy against training time."""
    result = find("training", "accelerator")
    best = (
        next((figure for figure in figures(result, "best accuracy") if "curve" in figure), None)
        if result
        else None
    )
    if result is None or best is None:
        return None
    return charts.lines(
        "Training on FER2013: PublicTest accuracy by time",
        short_caption(result),
        ("seconds", "accuracy, %"),
        {"averaged weights": [(seconds, 100 * right) for seconds, right in best["curve"]]},
    )


def plot_training_runs(find: Find) -> str | None:
    """Draw the accuracy on held-out rows against the hours of training, a line a run."""
    result = find("training-runs", "cpu")
    if result is None:
        return None
    series = {
        figure["name"]: [
            (hours, 100 * share)
            for hours, share in zip(figure["hours"], figure["curves"]["fer2013_accuracy"], strict=True)
            if share >= 0.6
        ]
        for figure in result["figures"]
    }
    return charts.lines(
        "FER2013, rows held out: accuracy by training time",
        f"Averaged weights by epoch, from 60% on; one core, other work beside; {short_caption(result)}",
        ("hours", "accuracy, %"),
        series,
    )


def plot_detection_reliability(find: Find) -> str | None:
    """Draw how often facekit's detections are right against their scores."""
    result = find("detection", "cpu")
    if result is None:
        return None
    bins = result["reliability"]["bins"]
    count = sum(told["n"] for told in bins)
    return charts.lines(
        "How often a detection is a face, by its score",
        f"{count} detections in held-out pictures, each half under the fit to the other; {result['date']}",
        ("score", "share that is right"),
        {
            "calibrated": [(0, 0), (1, 1)],
            f"{result['weights']}": [(told["score"], told["share"]) for told in bins],
        },
        dashed=lambda name: name == "calibrated",
    )


PLOTS: Mapping[str, tuple[str, Callable[[Find], str | None]]] = {
    "reliability": ("Share of right answers by confidence", plot_reliability),
    "peers": ("Time of one picture, facekit and other libraries", plot_peers),
    "throughput": ("Faces a second by batch", plot_throughput),
    "scaling": ("A picture's cost by the number of pictures", plot_scaling),
    "accuracy_latency": ("Accuracy by time", plot_accuracy_latency),
    "detection_reliability": ("Share of right detections by score", plot_detection_reliability),
    "training_runs": ("Held-out accuracy by hours of training, a line a run", plot_training_runs),
    "time_to_accuracy": ("Accuracy by training time", plot_time_to_accuracy),
}
"""Plot to its alternative text and what draws it."""
