"""The page's sections: expressions, keypoints, suspect labels, worst cases, samples and faults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit import metrics, plots
from facekit.crosschecking import OTHER_LABEL, UNDETECTED, CrossCheck, random_places
from facekit.reference import Reference
from facekit.report import parts
from facekit.report.charts import chart
from facekit.report.tiles import tile
from facekit.schema import EXPRESSIONS

SUSPECTS_SHOWN = {"expression": 24, "keypoints": 12}
WORST_SHOWN = 12
WORST_OF_CLASS = 4
ROWS_SHOWN = 10
FAULTS_PICTURED = 12

FAULTS = {
    "left_out": "Rows that could not be used",
    "unreadable": "Pictures that cannot be read",
    "duplicates": "Surplus exact copies of a picture",
    "conflicting_duplicates": "Copies of one picture with different labels",
    "split_overlap": "Pictures that also stand in an earlier split",
    "group_overlap": "People or photos that also stand in an earlier split",
    "blank": "Blank pictures",
    "unknown_labels": "Labels that are no known expression",
    "points_outside": "Faces with points outside the picture",
    "swapped_sides": "Faces with left and right exchanged",
    "class_imbalance": "Scarce classes, below a fifth of the largest",
}
"""What the kinds of faults are called; see data.faults."""

PICTURED = ("conflicting_duplicates", "swapped_sides", "points_outside", "blank")


def expressions(result: CrossCheck) -> str:
    """Show how predicted expressions fit the labels, or their mix where there are none."""
    evaluation = result.evaluation
    figures = evaluation.expression
    if figures is None or not figures.n:
        return _expression_mix(result)
    known = evaluation.truth >= 0
    truth, scores = evaluation.truth[known], evaluation.predictions.scores[known]
    found = metrics.detected(scores)
    top, right = scores[found].max(1), scores[found].argmax(1) == truth[found]
    edges = np.linspace(0, 1, 21)
    sureness = plots.histogram([top[right], top[~right]], ["right", "wrong"], edges, "confidence", "faces")
    charts = parts.columns(
        chart(
            plots.reliability(*metrics.reliability(truth, scores)),
            "reliability",
            f"Reliability diagram: expected calibration error {parts.percent(figures.ece)}",
            "How often predictions are right, by how sure they are; the bars below count them. On the dashed "
            "line a confidence means what it says.",
        ),
        chart(
            sureness,
            "sureness",
            f"Histogram of confidence: {right.sum()} right and {(~right).sum()} wrong predictions",
            "How sure right and wrong predictions are.",
        ),
    )
    tables = parts.columns(
        f"<div><h3>Labels against predictions</h3>{_confusion(figures)}</div>",
        f"<div><h3>By class</h3>{_class_table(figures)}</div>",
    )
    return f"{tables}<h3>How far the confidence can be trusted</h3>{charts}"


def _confusion(figures: metrics.ExpressionMetrics) -> str:
    rows = []
    for label, counts in zip(figures.labels, figures.confusion, strict=True):
        total = max(int(counts.sum()), 1)
        cells = ""
        for other, count in zip(figures.labels, counts, strict=True):
            share = count / total
            kind = ("right " if label == other else "") + ("strong" if share > 0.55 else "")
            said = f"{count:,} labelled {label}, predicted {other}"
            cells += f'<td class="{kind}" style="--share:{share:.3f}" title="{said}">{share:.0%}'
            cells += f"<small>{count:,}</small></td>"
        rows.append(f'<tr><th scope="row">{label}</th>{cells}</tr>')
    head = "".join(f'<th scope="col">{label}</th>' for label in figures.labels)
    caption = "Rows: the label. Columns: the prediction. Shares of the row, and counts."
    return (
        f'<div class="scroll"><table class="confusion"><caption>{caption}</caption>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _class_table(figures: metrics.ExpressionMetrics) -> str:
    rows = []
    for label, of_class in figures.per_class.items():
        shares = [of_class[name] for name in ("precision", "recall", "f1")]
        rows.append([label, f"{of_class['n']:,}", *(parts.bar(s, parts.percent(s)) for s in shares)])
    return parts.table(["label", "rows", "precision", "recall", "F1"], rows, numbers=(1,))


def _expression_mix(result: CrossCheck) -> str:
    scores = result.evaluation.predictions.scores
    scores = scores[metrics.detected(scores)]
    if not len(scores):
        return ""
    counts = np.bincount(scores.argmax(1), minlength=len(EXPRESSIONS))
    rows = []
    for c, label in enumerate(EXPRESSIONS):
        share, expected = float(counts[c] / len(scores)), float(scores[:, c].mean())
        bars = [parts.bar(value, parts.percent(value)) for value in (share, expected)]
        rows.append([label, f"{counts[c]:,}", *bars])
    head = ["expression", "faces", "share", "mean probability"]
    lacking = (
        "expression labels" if result.dataset.labels is None else "label that is one of the model's seven"
    )
    remark = f"The dataset has no {lacking}; this is the mix of expressions that the model sees."
    return parts.note(remark) + parts.table(head, rows, numbers=(1,))


def keypoints(result: CrossCheck) -> str:
    """Show how far predicted points lie from labelled ones, or how sure they are where there are none."""
    evaluation = result.evaluation
    figures = evaluation.keypoints
    if figures is None or not figures.n:
        return _expected_errors(result)
    shown = []
    errors = evaluation.errors[~np.isnan(evaluation.errors)]
    if len(errors):
        within = parts.percent(float((errors <= metrics.FAILURE).mean()))
        shown.append(
            chart(
                evaluation.plot_ced(),
                "ced",
                f"Cumulative error distribution: {within} of faces within 8%",
                "Share of faces whose mean error is at most so large; one that was not found has no end.",
            )
        )
        finite, edges = errors[np.isfinite(errors)], np.linspace(0, 0.12, 25)
        shown.append(
            chart(
                plots.histogram([finite], ["faces"], edges, "mean error / distance of the eyes", "faces"),
                "errors",
                f"Histogram of the mean errors of {len(finite)} faces",
                "Mean error of each face; larger ones are in the last bin.",
            )
        )
    if metrics.detected(evaluation.predictions.points).any():
        shown.append(
            chart(
                result.plot_mean_face(),
                "mean-face",
                "Mean face with each point's mean error as a circle and its mean offset as a line",
                "Circle: a point's mean error, written below it. Line: to where predictions lie from labels "
                "on average. Both twice as large as they are. The subject's left is on the right.",
            )
        )
    per_point = sorted(figures.per_point.items(), key=lambda entry: -(entry[1] or 0))
    rows = [[name.replace("_", " "), parts.bar(e, parts.fine_percent(e), 0.06)] for name, e in per_point]
    shown.append(f"<div>{parts.table(['point', 'mean error'], rows)}</div>")
    return parts.columns(*shown) + parts.note(
        "The model states an expected error for each point: "
        f"{parts.percent(figures.coverage_68)} of the points lie within the radius that should hold 68%, "
        f"{parts.percent(figures.coverage_95)} within that for 95%."
    )


def _expected_errors(result: CrossCheck) -> str:
    predictions = result.evaluation.predictions
    found = metrics.detected(predictions.points)
    if not found.any():
        return parts.note(
            "The dataset has no labelled points, and points were placed on none of its pictures."
        )
    relative = predictions.sigma[found] / metrics.eye_distances(predictions.points[found])[:, None]
    return parts.note(
        f"The dataset has no labelled points. Points were placed on {found.sum():,} of {len(found):,} "
        f"samples; the model expects them to be off by {parts.percent(float(np.nanmedian(relative)))} of the "
        "distance of the eyes (median). The samples below show them."
    )


def suspect_labels(result: CrossCheck) -> str:
    """Show the labels that are most probably wrong."""
    found = result.suspects
    shown = []
    for task, tiles_shown in SUSPECTS_SHOWN.items():
        ranks = np.flatnonzero(found.tasks == task)
        scored = ranks[~np.isin(found.patterns[ranks].astype(str), (UNDETECTED, OTHER_LABEL))]
        if len(scored):
            flagged = f"{found.flagged[ranks].sum():,} of {parts.count(len(ranks), 'label')} flagged"
            title = f"{task.capitalize().rstrip('s')}s: {flagged}, the most suspect first"
            if task == "expression":
                tiles = _expression_tiles(result, found.places[scored[:tiles_shown]])
            else:
                named = {int(found.places[rank]): str(found.patterns[rank]) for rank in scored[:tiles_shown]}
                tiles = _points_tiles(result, named)
            shown.append(f"<h3>{title}</h3>{tiles}")
    if not len(found):
        return ""
    reference = "" if result.reference is None else _reference(result.reference)
    return parts.note("suspects.csv lists all labels, most suspect first.") + "".join(shown) + reference


def _expression_tiles(result: CrossCheck, places: Iterable[int]) -> str:
    """Show faces with what the labels and the model say of them."""
    return parts.point_key("predicted") + parts.tiles(_expression_tile(result, place) for place in places)


def _points_tiles(result: CrossCheck, patterns: Mapping[int, str]) -> str:
    """Show faces, by place, with their points and a pattern or ""."""
    tiles = parts.tiles((_points_tile(result, place, name) for place, name in patterns.items()), "large")
    return parts.point_key("labelled", "predicted") + tiles


def _expression_tile(result: CrossCheck, place: int) -> str:
    """Show what the label and the model say of a face, each with its probability."""
    labels, scores = result.dataset.labels, result.evaluation.predictions.scores[place]
    label = None if labels is None else labels[place]
    source = str(result.dataset.sources[place])
    top, seen, own = None, "no face found", ""
    if not np.isnan(scores[0]):
        top = EXPRESSIONS[int(scores.argmax())]
        seen = f"{top} {scores.max():.0%}"
        own = f" {scores[EXPRESSIONS.index(label)]:.0%}" if label in EXPRESSIONS else ""
    labelled = f'<span class="from">{escape(str(label))}{own}</span> ' if label not in (None, top) else ""
    said = f"labelled {label}, predicted {seen}" if label else f"predicted {seen}"
    caption = f'{labelled}<span class="to">{seen}</span> <small>{escape(source)}</small>'
    return tile(result, place, f"Face of {source}: {said}", caption)


def _points_tile(result: CrossCheck, place: int, pattern: str = "") -> str:
    """Show the labelled and predicted points of a face and how far they are apart."""
    error, source = result.evaluation.errors[place], str(result.dataset.sources[place])
    size = f"error {parts.percent(float(error))}" if np.isfinite(error) else ""
    named = pattern.replace("_", " ")
    caption = f'<span class="from">{named}</span> <span>{size}</span> <small>{escape(source)}</small>'
    said = " ".join(word for word in (named, size) if word)
    return tile(result, place, f"Face of {source} with labelled and predicted points {said}", caption)


def _reference(reference: Reference) -> str:
    """Tell how well the scores find labels that independent taggers disagree with."""
    figures = parts.facts(
        [
            parts.fact("Within classes", reference.macro_within_class_auroc, None, parts.decimal),
            parts.fact("Pooled", reference.pooled_auroc, None, parts.decimal),
            parts.fact("By the class alone", reference.class_prior_auroc, None, parts.decimal),
        ]
    )
    within = [[label, parts.bar(v, parts.decimal(v))] for label, v in reference.per_class_auroc.items()]
    ks = [k for k in next(iter(reference.precision_at_k.values())) if k not in ("n", "base_rate")]
    precision = [
        [label, *(parts.percent(row[name]) for name in ("base_rate", *ks))]
        for label, row in reference.precision_at_k.items()
    ]
    head = ["class", "base rate", *(f"first {k}" for k in ks)]
    explained = parts.note(
        f"On {parts.count(reference.n, 'row')} with a plurality of independent votes: the chance that a "
        "label which the taggers reject scores above one that they share (area under the ROC curve). "
        "Distrusting labels by their class alone already gives the third figure, so the first is what counts."
    )
    side_by_side = parts.columns(
        f"<div>{parts.table(['class', 'area under the ROC curve'], within)}</div>",
        f"<div>{parts.table(head, precision, numbers=range(1, len(head)))}"
        f"{parts.note('Share of rejected labels among the most suspect of each class.')}</div>",
    )
    return f"<h3>Judged by independent taggers</h3>{explained}{figures}{side_by_side}"


def worst_cases(result: CrossCheck) -> str:
    """Show the surest mistakes of each class, the points that are furthest off, and faces not found."""
    evaluation, shown = result.evaluation, ""
    scores, truth = np.nan_to_num(evaluation.predictions.scores), evaluation.truth
    wrong = (truth >= 0) & (scores.max(1) > 0) & (scores.argmax(1) != truth)
    if wrong.any():
        places = [np.flatnonzero(wrong & (truth == c)) for c in range(len(EXPRESSIONS))]
        surest = [place for of_class in places for place in _first(of_class, -scores.max(1), WORST_OF_CLASS)]
        shown += f"<h3>The surest mistakes of each class</h3>{_expression_tiles(result, surest)}"
    furthest = _first(np.flatnonzero(np.isfinite(evaluation.errors)), -evaluation.errors, WORST_SHOWN)
    if furthest:
        shown += f"<h3>The points furthest off</h3>{_points_tiles(result, dict.fromkeys(furthest, ''))}"
    missed = np.flatnonzero(np.isnan(evaluation.predictions.box_scores))
    if len(missed):
        tiles = _tiles(result, missed[:WORST_SHOWN].tolist())
        shown += f"<h3>No face found, in {parts.count(len(missed), 'picture')}</h3>{tiles}"
    return shown


def samples(result: CrossCheck) -> str:
    """Show some samples as they come."""
    return parts.note("Chosen at random.") + _tiles(result, random_places(len(result.dataset)))


def _tiles(result: CrossCheck, places: Sequence[int]) -> str:
    """Show samples by what they are labelled with."""
    if result.evaluation.keypoints is None:
        return _expression_tiles(result, places)
    return _points_tiles(result, dict.fromkeys(places, ""))


def faults(result: CrossCheck) -> str:
    """List what is wrong with the dataset itself, with rows to look at."""
    found = {kind: fault for kind, fault in result.faults.items() if fault["n"]}
    clear = [FAULTS.get(kind, kind).lower() for kind in result.faults if kind not in found]
    place_of = {int(row): place for place, row in enumerate(result.dataset.rows)}
    rows, pictures = [], ""
    for kind, fault in found.items():
        listed = ", ".join(str(row) for row in fault["rows"][:ROWS_SHOWN])
        more = " …" if len(fault["rows"]) > ROWS_SHOWN else ""
        rows.append([FAULTS.get(kind, kind), f"{fault['n']:,}", f"{listed}{more}"])
        shown = [place_of[row] for row in fault["rows"] if row in place_of][:FAULTS_PICTURED]
        if kind in PICTURED and shown:
            pictures += f"<h3>{FAULTS[kind]}</h3>{_tiles(result, shown)}"
    table = parts.table(["fault", "count", "rows"], rows, numbers=(1,)) if rows else ""
    none = parts.note(f"Looked for and not found: {', '.join(clear)}.") if clear else ""
    return table + none + pictures


def _first(places: NDArray[np.int64], order: NDArray[Any], wanted: int) -> list[int]:
    """Give the places whose `order` is lowest."""
    return [int(place) for place in places[np.argsort(order[places], kind="stable")[:wanted]]]
