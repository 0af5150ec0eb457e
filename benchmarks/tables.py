"""What the pages show of results files: tables and plots by name; a new one is a function and a line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import charts
from charts import number

Result = dict[str, Any]
Figure = dict[str, Any]
Find = Callable[[str, str], Result | None]
"""Gives the newest full result of a suite on "cpu" or on an "accelerator"."""


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Give a Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *(list(row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def percent(figure: float | None, interval: Iterable[float] | None = None) -> str:
    """Give a share as a percentage, with its interval."""
    if figure is None:
        return "-"
    tail = "" if interval is None else " ({:.1f} to {:.1f})".format(*(100 * limit for limit in interval))
    return f"{100 * figure:.1f}%{tail}"


def figures(result: Result, name: str | None = None, **setting: Any) -> list[Figure]:
    """Give the figures of a name and setting."""
    return [
        figure
        for figure in result["figures"]
        if name in (None, figure["name"])
        and all(figure["setting"].get(key) == told for key, told in setting.items())
    ]


def cell(figure: Figure | None) -> str:
    """Give a figure with its spread, and the share of the hardware's limit that it reaches."""
    if figure is None:
        return "-"
    if figure.get("value", 0) is None:
        return str(figure["reason"])
    if "median" not in figure:
        told = figure["value"]
        return percent(told) if figure["unit"] == "share" else number(told)
    low, high = figure["quartiles"]
    floor = f", {figure['floor']['share']:.0%} of the limit" if "floor" in figure else ""
    return f"{number(figure['median'])} ({number(low)} to {number(high)}){floor}"


def pivot(
    corner: str,
    shown: Sequence[Figure],
    row: Callable[[Figure], str],
    column: Callable[[Figure], str],
) -> str:
    """Give a table of figures by what names their row and their column, both in order of appearance."""
    cells = {(row(figure), column(figure)): figure for figure in shown}
    columns = list(dict.fromkeys(name for _, name in cells))
    return table(
        (corner, *columns),
        (
            (name, *(cell(cells.get((name, other))) for other in columns))
            for name in dict.fromkeys(name for name, _ in cells)
        ),
    )


def by(*keys: str) -> Callable[[Figure], str]:
    """Give the function that names a figure by parts of its setting; "name" and "unit" are its own."""

    def name_of(figure: Figure) -> str:
        parts = [figure[key] if key in ("name", "unit") else figure["setting"].get(key) for key in keys]
        return " ".join(
            f"{part:,}" if isinstance(part, int) else str(part) for part in parts if part is not None
        )

    return name_of


def caption(result: Result) -> str:
    """Tell what a result was measured on."""
    machine = result["machine"]
    hardware = f"{machine['processor']}, {machine['cores']} cores"
    if machine["accelerator"] and result["device"] == "accelerator":
        hardware = f"{machine['accelerator']} ({hardware})"
    skipped = "".join(f"; {one['case']}: {one['reason']}" for one in result.get("skipped", ()))
    return f"\n{hardware}, torch {machine['packages']['torch']}, {result['date']}{skipped}.\n"


def accuracy(result: Result) -> str:
    """Give the expression figures of the shipped weights, a line a set."""
    rows = []
    for figure in result["figures"]:
        told = figure.get("evaluation", {}).get("expression")
        if told:
            parts = (told["balanced_accuracy"], told["macro_f1"], told["ece"])
            right = percent(told["accuracy"], told["ci95"]["accuracy"])
            rows.append((figure["name"], f"{told['n']:,}", right, *map(percent, parts)))
    head = ("expressions", "n", "accuracy (95% interval)", "balanced", "macro F1", "calibration error")
    return table(head, rows)


def keypoints(result: Result) -> str:
    """Give the keypoint figures of the shipped weights, a line a set."""
    rows = [
        (figure["name"], str(told["n"]), percent(told["nme"], told["ci95"]["nme"]), percent(told["auc_08"]))
        for figure in result["figures"]
        if (told := figure.get("evaluation", {}).get("keypoints"))
    ]
    return table(("keypoints", "n", "NME (95% interval)", "area under the curve to 8%"), rows)


def latency(result: Result) -> str:
    """Give the parts of a picture's time."""
    shown = [figure for figure in result["figures"] if "precision" in figure["setting"]]
    return pivot("one 512x512 picture, ms", shown, by("name"), by("precision"))


def detectors(result: Result) -> str:
    """Give the detectors' times by the picture's size."""
    return pivot("detector, ms", figures(result, "detector"), by("detector"), by("picture"))


FOUND = {
    "recall_afw_scenes": "recall, AFW scenes",
    "recall_helen": "recall, Helen",
    "false_positives_face_free": "false alarms a face-free sample",
    "false_positives_masked_scenes": "false alarms a masked scene",
    "average_precision": "average precision",
}


def detection(result: Result) -> str:
    """Give what each detector finds on held-out pictures, and its time."""
    return _detection("detector", result["detectors"])


def detection_sides(result: Result) -> str:
    """Give what facekit's detector finds by the longest side to which it brings pictures."""
    return _detection("longest side, pixels", result["by_side"])


def _detection(corner: str, rows: Mapping[str, Any]) -> str:
    return table(
        (corner, *FOUND.values(), "ms for 640x480, one core"),
        (
            (name, *_found(told), f"{told['one_core']['640x480']['median_ms']:.1f}")
            for name, told in rows.items()
        ),
    )


def detection_scores(result: Result) -> str:
    """Give what facekit's detector finds by the least score."""
    found = list(FOUND.values())[:-1]
    return table(
        ("--min-score", *found), ((s, *_found(told)[:-1]) for s, told in result["by_min_score"].items())
    )


def _found(told: Mapping[str, float]) -> list[str]:
    return [f"{told[key]:.3f}" for key in FOUND]


def detection_keypoints(result: Result) -> str:
    """Give the error of keypoints under detectors' boxes beside that under the labels' boxes."""
    rows = (
        (name, str(told["n"]), percent(told["nme"]), percent(told["nme_label_boxes"]), f"{told['ratio']:.3f}")
        for name, told in result["keypoints"].items()
    )
    head = ("boxes of", "faces found", "NME", "NME with labels' boxes, same faces", "ratio")
    return table(head, rows)


def cold_start(result: Result) -> str:
    """Give the time of a new process up to its first result."""
    shown = figures(result, "import facekit") + figures(result, "first picture")
    return pivot("a new process", shown, by("name"), by("unit"))


def throughput(result: Result) -> str:
    """Give the stages' rates by batch, in the arithmetic that facekit chooses, by way of running."""
    shown = figures(result, "both", automatic=True)
    shown += [figure for figure in figures(result, "both") if figure["setting"]["running"] != "eager"]
    return pivot("both stages, faces/s: batch", shown, by("batch"), by("precision", "running"))


def stages(result: Result) -> str:
    """Give each stage's rate by batch, in the arithmetic that facekit chooses."""
    shown = [figure for figure in figures(result, automatic=True) if figure["setting"]["running"] == "eager"]
    return pivot("faces/s: batch", shown, by("batch"), by("name"))


def precision(result: Result) -> str:
    """Give the rates of every arithmetic, and how near the automatic choice comes to the best."""
    shown = [figure for figure in figures(result, "both") if figure["setting"]["running"] == "eager"]
    shown += [
        {**figure, "setting": {**figure["setting"], "precision": "automatic, of the best"}}
        for figure in figures(result, "automatic of best", stage="both")
    ]
    return pivot("both stages, faces/s: batch", shown, by("batch"), by("precision", "layout"))


def profile(result: Result) -> str:
    """Give the operations in which the time of both stages goes."""
    shown = figures(result, "where the time goes")
    return pivot("operation", shown, by("operation"), lambda figure: f"batch {by('batch')(figure)}")


def pictures(result: Result) -> str:
    """Give whole analyses a second by where the pictures come from."""
    return pivot("640x480, pictures/s: batch", figures(result, "pictures"), by("batch"), by("source"))


def training(result: Result) -> str:
    """Give the training loop's rate and the time to accuracy."""
    speeds = pivot(
        "training", figures(result, "training"), by("tasks"),
        lambda figure: "images/s, compiled" if figure["setting"]["compiled"] else "images/s",
    )  # fmt: skip
    reached = figures(result, "time to accuracy")
    if not reached:
        return speeds
    rows = ((percent(figure["setting"]["accuracy"]), cell(figure)) for figure in reached)
    return speeds + "\n" + table(("FER2013 PublicTest", "seconds"), rows)


def augmentation(result: Result) -> str:
    """Give the augmentations' rates."""
    return pivot("crops/s: batch", result["figures"], by("batch"), by("name"))


def data(result: Result) -> str:
    """Give how fast datasets load."""
    return pivot("rows/s", result["figures"], by("dataset"), by("name"))


def memory(result: Result) -> str:
    """Give the peaks of new processes."""
    return pivot("largest resident memory", result["figures"], by("name", "batch"), by("unit"))


def scaling(result: Result) -> str:
    """Give a picture's cost and the memory by the number of pictures."""
    return pivot("pictures", result["figures"], by("pictures"), by("name", "unit"))


def peers(result: Result) -> str:
    """Give the libraries' times and what they find."""
    rows = []
    for figure in figures(result, "whole picture"):
        found = figure.get("found", {"faces": "-", "points": "-", "expressions": []})
        right = next(iter(figures(result, "FER2013 PublicTest", library=figure["setting"]["library"])), None)
        rows.append(
            (
                figure["setting"]["library"],
                figure["setting"].get("picture", "-"),
                cell(figure),
                str(found["points"]),
                "yes" if found["expressions"] else "no",
                cell(right),
            )
        )
    head = ("library", "picture", "ms", "points", "expression", "FER2013 PublicTest")
    return table(head, rows)


@dataclass(frozen=True)
class Table:
    """A table: of which suite, measured where, drawn by what."""

    suite: str
    device: str
    draw: Callable[[Result], str]


def baselines(result: Result) -> str:
    """Give the classic models and the shared trunk after equal minutes, beside what their projects report."""
    shown = sorted(figures(result, "baseline"), key=lambda figure: -figure["value"])
    rows = []
    for figure in shown:
        told = figure["setting"]
        seconds = told.get("training_seconds")
        classes = {"fer2013": "", "four": ", four classes"}.get(told["classes"], f", {told['classes']}")
        among = told.get("shared_among_them")
        rows.append(
            (
                f"{told['arch']}{classes}",
                told["start"],
                f"{told['parameters']:,}",
                number(told["flops"] / 1e6),
                "-" if seconds is None else f"{seconds / 60:.1f} min, {told['pictures']:,} pictures",
                percent(figure["value"], figure["ci95"]) + (f"; shared {percent(among)}" if among else ""),
                percent(told.get("training_accuracy")),
                f"{told['latency_ms']:.2f}",
                told.get("reference_figure", "-"),
            )
        )
    head = (
        "model",
        "start",
        "parameters",
        "MFLOPs a face",
        "training",
        "PublicTest, measured (95% interval)",
        "training rows",
        "ms a face",
        "reported by its project, on its own split",
    )
    return table(head, rows)


def keypoint_baselines(result: Result) -> str:
    """Give the separate keypoint network beside the shared one, on the same faces."""
    rows = [
        (
            told["arch"],
            f"{told['parameters']:,}",
            f"{told['training_seconds'] / 60:.1f} min",
            percent(figure["value"]),
            percent(told["shared_nme"]),
            str(told["n"]),
            f"{told['latency_ms']:.2f}",
            f"{told['shared_latency_ms']:.2f}",
        )
        for figure in figures(result, "keypoint baseline")
        if (told := figure["setting"])
    ]
    head = (
        "model",
        "parameters",
        "training",
        "NME",
        "NME of the shipped weights",
        "faces",
        "ms a face",
        "ms of the shipped",
    )
    return table(head, rows)


def runs(result: Result) -> str:
    """Give what was measured of each run."""
    return pivot("", result["figures"], by("run"), by("name", "unit"))


TABLES: Mapping[str, Table] = {
    "accuracy": Table("accuracy", "cpu", accuracy),
    "keypoints": Table("accuracy", "cpu", keypoints),
    "latency": Table("latency", "cpu", latency),
    "latency_accelerator": Table("latency", "accelerator", latency),
    "detection": Table("detection", "cpu", detection),
    "detection_scores": Table("detection", "cpu", detection_scores),
    "detection_sides": Table("detection", "cpu", detection_sides),
    "detection_keypoints": Table("detection", "cpu", detection_keypoints),
    "detectors": Table("latency", "cpu", detectors),
    "cold_start": Table("latency", "cpu", cold_start),
    "throughput": Table("throughput", "cpu", throughput),
    "throughput_accelerator": Table("throughput", "accelerator", throughput),
    "stages": Table("throughput", "cpu", stages),
    "stages_accelerator": Table("throughput", "accelerator", stages),
    "precision": Table("throughput", "cpu", precision),
    "precision_accelerator": Table("throughput", "accelerator", precision),
    "profile": Table("throughput", "cpu", profile),
    "profile_accelerator": Table("throughput", "accelerator", profile),
    "pictures": Table("throughput", "cpu", pictures),
    "pictures_accelerator": Table("throughput", "accelerator", pictures),
    "onnx_parity": Table("onnx-parity", "cpu", runs),
    "onnx_accuracy": Table("onnx-accuracy", "cpu", runs),
    "onnx_speed": Table("onnx-speed", "cpu", runs),
    "onnx_start": Table("onnx-start", "cpu", runs),
    "training": Table("training", "cpu", training),
    "training_accelerator": Table("training", "accelerator", training),
    "augmentation": Table("augmentation", "cpu", augmentation),
    "augmentation_accelerator": Table("augmentation", "accelerator", augmentation),
    "data": Table("data", "cpu", data),
    "memory": Table("memory", "cpu", memory),
    "memory_accelerator": Table("memory", "accelerator", memory),
    "scaling": Table("scaling", "cpu", scaling),
    "peers": Table("peers", "cpu", peers),
    "baselines": Table("baselines", "cpu", baselines),
    "keypoint_baselines": Table("baselines", "cpu", keypoint_baselines),
}


def short_caption(result: Result) -> str:
    """Tell what a plot was measured on."""
    machine = result["machine"]
    return f"{machine['accelerator'] or machine['processor']}, {result['date']}"


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
    "peers": ("Time of one picture, facekit and other libraries", plot_peers),
    "throughput": ("Faces a second by batch", plot_throughput),
    "scaling": ("A picture's cost by the number of pictures", plot_scaling),
    "accuracy_latency": ("Accuracy by time", plot_accuracy_latency),
    "detection_reliability": ("Share of right detections by score", plot_detection_reliability),
    "time_to_accuracy": ("Accuracy by training time", plot_time_to_accuracy),
}
"""Plot to its alternative text and what draws it."""
