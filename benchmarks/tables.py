"""The tables that pages show of results files, by name; a new one is a function and a line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cells import SETS, Result, by, cell, figures, percent, pivot, table
from charts import number
from reckoning import PICTURES, Cluster, backends, reckon
from reckoning import runs as largest_run

SIGMA = "points within sigma's 68%, 95%"


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
        (
            figure["name"],
            str(told["n"]),
            percent(told["nme"], told["ci95"]["nme"]),
            percent(told["auc_08"]),
            f"{percent(told['coverage_68'])}, {percent(told['coverage_95'])}",
        )
        for figure in result["figures"]
        if (told := figure.get("evaluation", {}).get("keypoints"))
    ]
    return table(("keypoints", "n", "NME (95% interval)", "area under the curve to 8%", SIGMA), rows)


def per_class(result: Result) -> str:
    """Give each expression's recall and precision, a column a set."""
    sets = {
        figure["name"]: told["per_class"]
        for figure in result["figures"]
        if (told := figure.get("evaluation", {}).get("expression")) and figure["name"] in SETS
    }
    labels = dict.fromkeys(label for told in sets.values() for label in told)
    rows = ((label, *(_recall_and_precision(told.get(label)) for told in sets.values())) for label in labels)
    return table(("recall, precision (faces)", *sets), rows)


def _recall_and_precision(told: Mapping[str, Any] | None) -> str:
    if told is None:
        return "-"
    return f"{percent(told['recall'])}, {percent(told['precision'])} ({told['n']:,})"


def confusion(result: Result) -> str:
    """Give how often each label of PublicTest is taken for each expression."""
    told = next(
        (f["evaluation"]["expression"] for f in result["figures"] if f["name"] == SETS[0]),
        {"labels": (), "confusion": ()},
    )
    rows = (
        (label, *(percent(count / max(1, sum(counts))) for count in counts))
        for label, counts in zip(told["labels"], told["confusion"], strict=True)
    )
    return table(("label \\ prediction", *told["labels"]), rows)


def latency(result: Result) -> str:
    """Give the parts of a picture's time."""
    shown = [figure for figure in result["figures"] if "precision" in figure["setting"]]
    return pivot("one 512x512 picture, ms", shown, by("name"), by("backend", "precision"))


def detectors(result: Result) -> str:
    """Give the detectors' times by the picture's size."""
    return pivot("detector, ms", figures(result, "detector"), by("detector"), by("picture"))


FOUND = {
    "recall_afw_scenes": "recall, AFW scenes",
    "recall_helen": "recall, Helen",
    "recall_group_photos": "recall, group photos",
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


def detection_sheets(result: Result) -> str:
    """Give what facekit's detector finds on sheets of four scenes by the longest side that it shrinks to."""
    return table(
        ("longest side, pixels", "labelled faces found", "of", "ms a sheet, one core"),
        (
            (side, f"{told['recall']:.3f}", str(told["faces"]), f"{told['one_core']['median_ms']:.1f}")
            for side, told in result["sheets"].items()
        ),
    )


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
    return pivot("a new process, ms", shown, by("name"), by("backend"))


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


SETS_HELD_OUT = {
    "FER2013": "fer2013, one look",
    "mirrored too": "fer2013, two looks",
    "RAF-DB": "raf_db, one look",
    "AffectNet": "affectnet, one look",
    "ExpW": "expw, one look",
    "muxspace": "muxspace, one look",
}


def _held_out(sets: dict[str, Any], first: bool) -> list[str]:
    """Give accuracy and log loss on each set's held-out rows, the latter as a change unless of the first."""
    told = []
    for one in (sets[name] for name in SETS_HELD_OUT.values()):
        change = f"{one['nll']:.3f}" if first else f"{one['change']:+.3f} ± {one['error']:.3f}"
        told.append(f"{percent(one['accuracy'])}, {change}")
    return [*told, percent(sets["fer2013, one look"]["ece"])]


def shares(result: Result) -> str:
    """Give what means of two networks reach on held-out rows, by the share of the one begun with."""
    rows = (
        (f"{share:g}", *_held_out(figure["sets"], share == 1), f"{100 * figure['nme']:.2f}%")
        for figure in result["figures"]
        for share in [figure["setting"]["share"]]
    )
    return table(("share of the beginning", *SETS_HELD_OUT, "FER2013's calibration error", "Helen NME"), rows)


def members(result: Result) -> str:
    """Give what members of an ensemble reach on held-out rows, the first ones, all, and each."""
    rows = (
        (figure["setting"]["members"], *_held_out(figure["sets"], not place))
        for place, figure in enumerate(result["figures"])
    )
    return table(("members", *SETS_HELD_OUT, "FER2013's calibration error"), rows)


def training_runs(result: Result) -> str:
    """Give what whole runs took and reached on the rows that they held out."""
    sets = (("fer2013", "FER2013"), ("raf_db", "RAF-DB"), ("muxspace", "muxspace"))
    rows = []
    for figure in result["figures"]:
        told = figure["held_out"]
        rows.append(
            (
                figure["name"],
                str(figure["epochs"]),
                f"{figure['hours'][-1]:.1f}",
                *(percent(told.get(f"{name}_accuracy")) for name, _ in sets),
                f"{told['fer2013_nll']:.3f}",
                percent(told.get("nme")),
            )
        )
    head = (
        "run",
        "epochs",
        "hours, with those before",
        *(name for _, name in sets),
        "FER2013's log loss",
        "Helen NME",
    )
    return table(head, rows)


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


STAGES = ("decode", "detect", "network", "rest")


def scale_cost(result: Result) -> str:
    """Give what a million pictures cost and where that goes, a line a backend."""
    rows = []
    for backend in backends(result):
        told = {figure["name"]: figure["value"] for figure in largest_run(result, backend)}
        times = {name: figures(result, name, backend=backend)[0]["median"] for name in STAGES}
        shares = [percent(time / sum(times.values())) for time in times.values()]
        hours = told["picture"] / 3.6  # a million pictures' milliseconds, in hours
        memory = f"{told['memory a worker']:,.0f} MiB"
        rows.append(
            (backend, f"{told['picture']:.1f} ms", f"{hours:.1f}", f"{hours / 2:.1f}", *shares, memory)
        )
    head = ("backend", "a picture", "core hours a million", "hours on 2 cores", *STAGES, "memory a worker")
    return table(head, rows) + _notes(result)


def scale_runs(result: Result) -> str:
    """Give whole runs by the number of workers."""
    shown = [figure for figure in result["figures"] if "workers" in figure["setting"]]
    return pivot("backend, workers", shown, by("backend", "workers"), by("name", "unit")) + _notes(result)


def scale_reckoning(result: Result) -> str:
    """Give the nodes, hours and money that PICTURES take on the named cluster."""
    cluster, rows = Cluster(), []
    for backend in backends(result):
        told = reckon(result, backend, cluster)
        parts = (f"{rate:,.0f}" for rate in told.rates.values())
        money = (f"{told.hours:.1f}", f"${told.dollars:,.0f}", told.bottleneck)
        rows.append((backend, *money, *parts, f"{told.memory:.0f} GiB", f"{told.output:,.0f} GB"))
    limits = [f"{name}, pictures/s" for name in reckon(result, backends(result)[0], cluster).rates]
    head = ("backend", "hours", "money", "bottleneck", *limits, "memory a machine", "shards")
    inputs = (
        f"{PICTURES:,} pictures on {cluster.name}, {cluster.cores} cores, {cluster.memory:g} GiB and "
        f"{cluster.network:g} Gbit/s each, ${cluster.price:g} an hour; storage of {cluster.store:g} GB/s"
    )
    return f"{inputs}:\n\n{table(head, rows)}{_notes(result)}"


def _notes(result: Result) -> str:
    return f"\n{result['notes']}\n" if result.get("notes") else ""


def ablations(result: Result) -> str:
    """Give the recipe with one thing changed: the seeds' means and ranges, and what the change makes."""
    found: dict[str, dict[str, list[float]]] = {}
    for figure in result["figures"]:
        told = found.setdefault(figure["setting"]["variant"], {})
        told.setdefault(figure["name"], []).append(100 * figure["value"])
    base = next(iter(found.values()), {})
    rows = (
        (variant, *(part for name in ("fer2013_accuracy", "nme") for part in _against(told, base, name)))
        for variant, told in found.items()
    )
    head = ("recipe", "FER2013 held out, % (seeds)", "change", "Helen NME, % (seeds)", "change")
    return table(head, rows)


def _against(
    told: Mapping[str, Sequence[float]], base: Mapping[str, Sequence[float]], name: str
) -> tuple[str, str]:
    if name not in told or name not in base:
        return "-", "-"
    mine, theirs = (sum(values[name]) / len(values[name]) for values in (told, base))
    seeds = ", ".join(f"{value:.2f}" for value in told[name])
    return f"{mine:.2f} ({seeds})", f"{mine - theirs:+.2f}"


MOTIONS = {
    "rest": "rest",
    "sway": "sway, half a face to each side in 2 s",
    "walk": "rest, walk, rest",
    "nod": "nod, 1.5 a second",
    "zoom": "zoom, a quarter in and out in 3 s",
}


def video_motion(result: Result) -> str:
    """Give what smoothing does to known motion."""
    rows = []
    for name, told in result["synthetic"].items():
        raw, smoothed = told["raw"], told["smoothed"]
        rows.append(
            (
                MOTIONS[name],
                f"{raw['jitter_px']:.3f} to {smoothed['jitter_px']:.3f}",
                _change(raw, smoothed, "jitter_px"),
                _frames(smoothed["lag_frames"]),
                f"{raw['error_px']:.2f} to {smoothed['error_px']:.2f}",
                _change(raw, smoothed, "box_jitter_px"),
                _frames(smoothed["box_lag_frames"]),
                _change(raw, smoothed, "score_jitter"),
            )
        )
    head = ("motion", "jitter of points, px", "change", "lag, frames", "error, px", "jitter of boxes")
    return table((*head, "lag of boxes", "jitter of probabilities"), rows)


CLIP_JITTER = {
    "points_jitter": "points",
    "points_jitter_slow": "points, slow third",
    "box_jitter": "boxes",
    "scores_jitter": "probabilities",
}


def video_clips(result: Result) -> str:
    """Give what smoothing does to clips of real faces."""
    rows = (
        (
            name,
            f"{told['slow_below_face_sizes_per_s']:.2f}",
            *(_change(told["raw"], told["smoothed"], key) for key in CLIP_JITTER),
            _frames(told["smoothed"]["lag_frames"]),
        )
        for name, told in result["clips"].items()
    )
    return table(("clip", "slow third below", *CLIP_JITTER.values(), "lag, frames"), rows)


def _change(before: Mapping[str, float], after: Mapping[str, float], key: str) -> str:
    return f"{after[key] / before[key] - 1:+.0%}"


def _frames(lag: float | None) -> str:
    return "" if lag is None else f"{lag:.2f}"


def video_speed(result: Result) -> str:
    """Give frames a second by how often faces are searched for."""
    ways = dict.fromkeys(way for told in result["clips"].values() for way in told)
    rows = (
        (name, *(number(told[way]["frames_per_s"]) for way in ways)) for name, told in result["clips"].items()
    )
    return table(("frames a second", *(f"detection in {way}" for way in ways)), rows)


def video_memory(result: Result) -> str:
    """Give how much memory a long video adds."""
    told = (f"{result['frames']:,}", number(result["after_500_mb"]), f"{result['growth_mb']:.0f}")
    return table(("frames", "MB after 500 frames", "MB more at most, later"), [told])


def serving(result: Result) -> str:
    """Give the service's rate, one by one, in batches, and under load with faults."""
    rows = [
        (
            name,
            str(told["clients"]),
            number(told["pictures_per_second"]["median"]),
            number(told["p50_ms"]["median"]),
            "-",
            number(told["processor_ms"]["median"]),
            _outcomes(told["outcomes"]),
        )
        for name, told in result["runs"].items()
        if name != "load"
    ]
    load = result["runs"]["load"]
    rows.append(
        (
            f"with batches and faults, {result['seconds'] / 60:.0f} minutes",
            str(load["clients"]),
            number(load["pictures_per_second"]),
            number(load["ms"]["p50"]),
            f"{number(load['ms']['p95'])}, {number(load['ms']['p99'])}",
            number(load["processor_ms"]),
            _outcomes(load["outcomes"]),
        )
    )
    head = ("run", "clients", "pictures/s", "p50, ms", "p95, p99, ms", "processor ms a picture", "outcomes")
    return table(head, rows)


def _outcomes(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} x {outcome}" for outcome, count in counts.items())


CHECKED = {
    "fer2013": "FER2013, PublicTest",
    "muxspace": "muxspace, whole pictures",
    "helen": "Helen, training part",
}
FAULTS = {
    "duplicates": "surplus copies",
    "conflicting_duplicates": "pictures with two labels",
    "blank": "blank pictures",
    "points_outside": "faces with points outside",
    "swapped_sides": "faces with left and right swapped",
}


def crosschecks(result: Result) -> str:
    """Give what the cross-check found in three sets, a line each."""
    rows = []
    for name, told in result["summaries"].items():
        right, near = told["expression"], told["keypoints"]
        agreement = []
        if right:
            parts = percent(right["accuracy"]), percent(right["balanced_accuracy"]), percent(right["ece"])
            agreement.append("{}, balanced {}, calibration error {}".format(*parts))
        if near:
            agreement.append(f"NME {percent(near['nme'])}")
        found = [f"{told['faults'][kind]['n']} {what}" for kind, what in FAULTS.items() if _any(told, kind)]
        missed = max(figures["undetected"] for figures in (right, near) if figures)
        if missed:
            found.append(f"no face found in {missed}")
        found += [
            f"{count} labels of {label}" for label, count in ((right or {}).get("other_labels") or {}).items()
        ]
        rows.append(
            (
                CHECKED[name],
                f"{told['n']:,}",
                "; ".join(agreement),
                f"{told['suspects']['flagged']:,}",
                f"{told['seen_in_training']:,}",
                ", ".join(found) or "nothing",
            )
        )
    head = ("set", "rows", "agreement with the labels", "flagged", "seen in training", "what else it found")
    return table(head, rows)


def _any(told: Mapping[str, Any], kind: str) -> bool:
    return bool(told["faults"].get(kind, {"n": 0})["n"])


def rejected_labels(result: Result) -> str:
    """Give how well suspect scores rank labels that FER+'s taggers reject, by what they are scored by."""
    rows = (
        (
            name,
            f"{told['macro_within_class_auroc']:.3f}",
            *(f"{told['per_class_auroc'][label]:.2f}" for label in told["per_class_auroc"]),
            percent(result["planted_labels_found"][name]),
        )
        for name, ways in result["suspects"].items()
        if (told := ways["self_confidence"])
    )
    labels = next(iter(result["suspects"].values()))["self_confidence"]["per_class_auroc"]
    return table(("scored by", "AUROC within classes", *labels, "planted labels found"), rows)


def first_suspects(result: Result) -> str:
    """Give how many of the first suspects FER+'s taggers reject."""
    told = result["summaries"]["fer2013"]["reference"]["precision_at_k"]
    depths = [key for key in next(iter(told.values())) if key.isdecimal()]
    rows = (
        (label, percent(at["base_rate"]), *(percent(at[depth]) for depth in depths))
        for label, at in told.items()
    )
    return table(("label", "of all", *(f"of the first {depth}" for depth in depths)), rows)


def crosscheck_seconds(result: Result) -> str:
    """Give the time of a cross-check beside that of the bare passes."""
    told = result["seconds"]
    times = (told["bare_passes"], told["fer2013"], told["fer2013"] / told["bare_passes"])
    return table(("bare passes, s", "cross-check with report, s", "ratio"), [map(number, times)])


def planted_points(result: Result) -> str:
    """Give how many faces with a planted fault are flagged under its name, and of sound ones at all."""
    told = result["planted_points"]
    return table([name.replace("_", " ") for name in told], [map(percent, told.values())])


def large_crosscheck(result: Result) -> str:
    """Give the memory of a cross-check of many small pictures, and what it writes."""
    told = (f"{result['pictures']:,}", number(result["peak_mebibytes"]), number(result["written_megabytes"]))
    return table(("pictures", "MiB held at most", "MB written"), [told])


@dataclass(frozen=True)
class Table:
    """A table: of which suite, measured where, drawn by what."""

    suite: str
    device: str
    draw: Callable[[Result], str]


TABLES: Mapping[str, Table] = {
    "accuracy": Table("accuracy", "cpu", accuracy),
    "keypoints": Table("accuracy", "cpu", keypoints),
    "unseen_set": Table("unseen-set", "cpu", keypoints),
    "per_class": Table("accuracy", "cpu", per_class),
    "confusion": Table("accuracy", "cpu", confusion),
    "latency": Table("latency", "cpu", latency),
    "latency_accelerator": Table("latency", "accelerator", latency),
    "detection": Table("detection", "cpu", detection),
    "detection_scores": Table("detection", "cpu", detection_scores),
    "detection_sides": Table("detection", "cpu", detection_sides),
    "detection_sheets": Table("detection", "cpu", detection_sheets),
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
    "scale_cost": Table("scale", "cpu", scale_cost),
    "scale_runs": Table("scale", "cpu", scale_runs),
    "scale_reckoning": Table("scale", "cpu", scale_reckoning),
    "training": Table("training", "cpu", training),
    "training_accelerator": Table("training", "accelerator", training),
    "training_runs": Table("training-runs", "cpu", training_runs),
    "shares": Table("shares", "cpu", shares),
    "members": Table("members", "cpu", members),
    "augmentation": Table("augmentation", "cpu", augmentation),
    "augmentation_accelerator": Table("augmentation", "accelerator", augmentation),
    "data": Table("data", "cpu", data),
    "memory": Table("memory", "cpu", memory),
    "memory_accelerator": Table("memory", "accelerator", memory),
    "scaling": Table("scaling", "cpu", scaling),
    "peers": Table("peers", "cpu", peers),
    "video_motion": Table("video-smoothing", "cpu", video_motion),
    "video_clips": Table("video-smoothing", "cpu", video_clips),
    "video_speed": Table("video-speed", "cpu", video_speed),
    "video_memory": Table("video-memory", "cpu", video_memory),
    "serving": Table("serving", "cpu", serving),
    "crosschecks": Table("crosscheck", "cpu", crosschecks),
    "rejected_labels": Table("crosscheck", "cpu", rejected_labels),
    "first_suspects": Table("crosscheck", "cpu", first_suspects),
    "planted_points": Table("crosscheck", "cpu", planted_points),
    "crosscheck_seconds": Table("crosscheck", "cpu", crosscheck_seconds),
    "large_crosscheck": Table("crosscheck-memory", "cpu", large_crosscheck),
    "ablations": Table("ablations", "cpu", ablations),
    "baselines": Table("baselines", "cpu", baselines),
    "keypoint_baselines": Table("baselines", "cpu", keypoint_baselines),
}
