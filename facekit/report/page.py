"""The page of a cross-check: one HTML file that needs nothing else, for any screen, light or dark, and for paper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit import __version__, metrics, plots
from facekit.crosschecking import OTHER_LABEL, UNDETECTED, CrossCheck, Reference
from facekit.report.charts import chart
from facekit.report.tiles import tile
from facekit.schema import EXPRESSIONS, KEYPOINTS

SUSPECTS_SHOWN = 24
WORST_SHOWN = 12
WORST_OF_CLASS = 4
SAMPLES_SHOWN = 24
ROWS_SHOWN = 12

FAULTS = {
    "duplicates": "exact copies of another picture",
}
"""What each kind of fault is, for people."""

_KEY = (
    '<p class="note"><span class="key"><svg viewBox="0 0 10 10" aria-hidden="true"><circle class="labelled" '
    'cx="5" cy="5" r="4"/></svg>labelled point</span><span class="key"><svg viewBox="0 0 10 10" '
    'aria-hidden="true"><circle class="predicted" cx="5" cy="5" r="4"/></svg>predicted point</span></p>'
)


def page(result: CrossCheck) -> str:
    """Give the whole page as HTML."""
    evaluation = result.evaluation
    sections = {
        "Overview": _overview(result),
        "Expressions": _expressions(result),
        "Keypoints": _keypoints(result),
        "Suspect labels": _suspects(result),
        "Worst cases": _worst(result),
        "Samples": _samples(result),
        "Faults of the dataset": _faults(result),
        "Method": _method(result),
    }
    shown = {title: body for title, body in sections.items() if body}
    links = "".join(f'<li><a href="#{_slug(title)}">{title}</a></li>' for title in shown)
    body = "".join(
        f'<section id="{_slug(title)}"><h2>{title}</h2>{content}</section>' for title, content in shown.items()
    )
    style = (resources.files("facekit.report") / "style.css").read_text(encoding="utf-8")
    name = escape(result.dataset.name)
    title = f"{name}, {escape(evaluation.split)}" if evaluation.split else name
    facts = [
        f"{len(result.dataset):,} samples",
        f"format {result.dataset.format}",
        f"weights {escape(evaluation.weights)}",
        f"face boxes from {'the detector' if evaluation.boxes == 'detector' else 'the labels'}",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Cross-check of {title}</title><style>{style}</style></head><body>"
        f'<header><p class="eyebrow">facekit cross-check</p><h1>{title}</h1>'
        f'<p class="meta"><code>{escape(evaluation.path)}</code> · {" · ".join(facts)}</p>'
        f'<p class="lede">{_verdict(result)}</p></header>'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav><main>{body}</main>'
        f"<footer>facekit {__version__}. Everything on this page is in the file itself; the tables beside it hold "
        "every row.</footer></body></html>\n"
    )


def _verdict(result: CrossCheck) -> str:
    """Say in a few sentences what the cross-check found."""
    expression, keypoints = result.evaluation.expression, result.evaluation.keypoints
    sentences = []
    if expression is not None and expression.accuracy is not None:
        interval = _interval(expression.ci95.get("accuracy"), _percent)
        sentences.append(
            f"The expression model agrees with <b>{_percent(expression.accuracy)}</b> of {expression.n:,} labels "
            f"({interval})."
        )
    if keypoints is not None and keypoints.nme is not None:
        sentences.append(
            f"Predicted points lie <b>{_percent(keypoints.nme, 2)}</b> of the distance of the eyes from the "
            f"labelled ones ({_interval(keypoints.ci95.get('nme'), lambda value: _percent(value, 2))})."
        )
    flagged = int(result.suspects.flagged.sum())
    if len(result.suspects):
        sentences.append(f"<b>{flagged:,}</b> of {len(result.suspects):,} labels look wrong.")
    else:
        sentences.append("The dataset has no labels, so there is only what was predicted.")
    missed = int(np.isnan(result.evaluation.predictions.box_scores).sum())
    if missed:
        sentences.append(f"In {_count(missed, 'picture')} no face was found.")
    return " ".join(sentences)


def _overview(result: CrossCheck) -> str:
    expression, keypoints = result.evaluation.expression, result.evaluation.keypoints
    facts = []
    if expression is not None:
        for name, label, show in (
            ("accuracy", "Accuracy", _percent),
            ("balanced_accuracy", "Balanced accuracy", _percent),
            ("macro_f1", "Macro F1", _percent),
            ("ece", "Calibration error", _percent),
            ("nll", "Log loss", _decimal),
            ("brier", "Brier score", _decimal),
        ):
            facts.append(_fact(label, getattr(expression, name), expression.ci95.get(name), show))
    if keypoints is not None:
        for name, label, show in (
            ("nme", "Mean keypoint error", lambda value: _percent(value, 2)),
            ("failure_rate_08", "Faces failed (over 8%)", _percent),
            ("auc_08", "Area under curve to 8%", _decimal),
            ("rmse_96", "Root mean square, 96 px", lambda value: f"{value:.2f} px"),
        ):
            facts.append(_fact(label, getattr(keypoints, name), keypoints.ci95.get(name), show))
    return f'<dl class="facts">{"".join(facts)}</dl>{"".join(_notices(result))}'


def _notices(result: CrossCheck) -> Iterable[str]:
    """Say what must be known to read the figures rightly."""
    evaluation = result.evaluation
    seen = 0 if result.seen is None else int(result.seen.sum())
    if seen:
        yield _notice(
            f"<b>{seen:,} of these {len(result.dataset):,} samples were in the training data of "
            f"{escape(evaluation.weights)}.</b> There the model repeats what it was taught: figures are too good and "
            "wrong labels look right. For those rows use predictions out of fold: <code>facekit train --folds "
            "5</code>, then <code>facekit crosscheck --out-of-fold folds.npz</code>."
        )
    if evaluation.expression is not None and evaluation.expression.other_labels:
        others = ", ".join(f"{escape(name)} ({n:,})" for name, n in evaluation.expression.other_labels.items())
        yield _notice(f"Labels that are none of the model's seven are not in the figures: {others}.")
    if evaluation.skipped:
        rows = "".join(
            f"<li>row {row.row}, <code>{escape(row.source)}</code>: {escape(row.reason)}</li>"
            for row in evaluation.skipped[:ROWS_SHOWN]
        )
        more = len(evaluation.skipped) - ROWS_SHOWN
        rest = f"<li>and {more:,} more, in summary.json</li>" if more > 0 else ""
        rows = f"<ul>{rows}{rest}</ul>"
        yield _notice(f"{_count(len(evaluation.skipped), 'row')} could not be read and were left out:{rows}")


def _expressions(result: CrossCheck) -> str:
    evaluation = result.evaluation
    expression = evaluation.expression
    if expression is None or not expression.n:
        return _expression_mix(result)
    known = evaluation.truth >= 0
    truth, scores = evaluation.truth[known], evaluation.predictions.scores[known]
    counts, confidence, accuracy = metrics.reliability(truth, scores)
    found = metrics.detected(scores)
    top, right = scores[found].max(1), scores[found].argmax(1) == truth[found]
    reliability = chart(
        plots.reliability(counts, confidence, accuracy),
        "reliability",
        f"Reliability diagram: expected calibration error {_percent(expression.ece)}",
        "How often predictions are right, by how sure they are; the bars below count them. On the dashed line a "
        "confidence means what it says.",
    )
    sureness = chart(
        plots.histogram([top[right], top[~right]], ["right", "wrong"], np.linspace(0, 1, 21), "confidence", "faces"),
        "sureness",
        f"Histogram of confidence: {right.sum()} right and {(~right).sum()} wrong predictions",
        "How sure right and wrong predictions are.",
    )
    return (
        f"<h3>Labels against predictions</h3>{_confusion(expression)}"
        f"<h3>By class</h3>{_class_table(expression)}"
        f'<h3>How far the confidence can be trusted</h3><div class="columns">{reliability}{sureness}</div>'
    )


def _confusion(expression: metrics.ExpressionMetrics) -> str:
    rows = []
    for label, counts in zip(expression.labels, expression.confusion, strict=True):
        total = max(int(counts.sum()), 1)
        cells = []
        for other, count in zip(expression.labels, counts, strict=True):
            share = count / total
            kind = " ".join(["right"] * (label == other) + ["strong"] * (share > 0.55))
            cells.append(
                f'<td class="{kind}" style="--share:{share:.3f}" title="{count} labelled {label}, predicted {other}">'
                f"{share:.0%}<small>{count:,}</small></td>"
            )
        rows.append(f'<tr><th scope="row">{label}</th>{"".join(cells)}</tr>')
    head = "".join(f'<th scope="col">{label}</th>' for label in expression.labels)
    return (
        '<div class="scroll"><table class="confusion"><caption>Rows: the label. Columns: the prediction. Shares of '
        f"the row, and counts.</caption><thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        "</div>"
    )


def _class_table(expression: metrics.ExpressionMetrics) -> str:
    rows = [
        [label, f"{figures['n']:,}", *(_bar(figures[name]) for name in ("precision", "recall", "f1"))]
        for label, figures in expression.per_class.items()
    ]
    return _table(["label", "rows", "precision", "recall", "F1"], rows, numbers=(1,))


def _expression_mix(result: CrossCheck) -> str:
    """Show which expressions a set without expression labels holds, as predicted."""
    scores = result.evaluation.predictions.scores
    scores = scores[metrics.detected(scores)]
    if not len(scores):
        return ""
    counts = np.bincount(scores.argmax(1), minlength=len(EXPRESSIONS))
    shares, expected = counts / counts.sum(), scores.mean(0)
    rows = [
        [label, f"{counts[c]:,}", _bar(float(shares[c])), _bar(float(expected[c]))]
        for c, label in enumerate(EXPRESSIONS)
    ]
    return (
        '<p class="note">The dataset has no expression labels; this is the mix of expressions that the model sees.</p>'
        + _table(["expression", "faces", "share", "mean probability"], rows, numbers=(1,))
    )


def _keypoints(result: CrossCheck) -> str:
    evaluation = result.evaluation
    keypoints = evaluation.keypoints
    predictions = evaluation.predictions
    if keypoints is None:
        found = int(metrics.detected(predictions.points).sum())
        relative = np.nanmedian(predictions.sigma / metrics.eye_distances(predictions.points)[:, None]) if found else 0
        return (
            f'<p class="note">The dataset has no labelled points. Points were placed on {found:,} of '
            f"{len(predictions):,} samples; the model expects them to be off by {_percent(float(relative))} of the "
            "distance of the eyes (median). The samples below show them.</p>"
        )
    errors = evaluation.errors[~np.isnan(evaluation.errors)]
    charts = []
    if len(errors):
        within = float((errors <= metrics.FAILURE).mean())
        charts.append(
            chart(
                evaluation.plot_ced(),
                "ced",
                f"Cumulative error distribution: {_percent(within)} of faces within 8%",
                "Share of faces whose mean error is at most so large. Faces that were not found count as infinite.",
            )
        )
        finite = errors[np.isfinite(errors)]
        charts.append(
            chart(
                plots.histogram([finite], ["faces"], np.linspace(0, 0.12, 25), "mean error / distance of the eyes", "faces"),
                "errors",
                f"Histogram of mean errors: median {_percent(float(np.median(finite)), 2) if len(finite) else '–'}",
                "Mean error of each face; larger ones are in the last bin.",
            )
        )
    if metrics.detected(predictions.points).any():
        charts.append(
            chart(
                result.plot_mean_face(),
                "mean-face",
                "Mean face with each point's mean error as a circle and its mean offset as an arrow",
                "Circle: a point's mean error. Arrow: which way predictions lie from labels on average, four times as "
                "long. The subject's left is on the right.",
            )
        )
    rows = [
        [name.replace("_", " "), _bar_of(error, 0.06, _percent(error, 2))]
        for name, error in sorted(keypoints.per_point.items(), key=lambda entry: -(entry[1] or 0))
    ]
    return (
        f'<div class="columns">{"".join(charts)}<div>{_table(["point", "mean error"], rows)}</div></div>'
        f"<p>{_sigma_note(keypoints)}</p>"
    )


def _sigma_note(keypoints: metrics.KeypointMetrics) -> str:
    if keypoints.coverage_68 is None or keypoints.coverage_95 is None:
        return ""
    return (
        f"The model states an expected error for each point. {_percent(keypoints.coverage_68)} of the points lie "
        f"within the radius that should hold 68%, {_percent(keypoints.coverage_95)} within that for 95%."
    )


def _suspects(result: CrossCheck) -> str:
    found = result.suspects
    if not len(found):
        return ""
    parts = [] if result.reference is None else [_reference(result.reference)]
    for task, title, count in (("expression", "Expressions", SUSPECTS_SHOWN), ("keypoints", "Keypoints", WORST_SHOWN)):
        ranks = np.flatnonzero(found.tasks == task)
        scored = ranks[~np.isin(found.patterns[ranks], (UNDETECTED, OTHER_LABEL))]
        if len(scored):
            tiles = [_suspect_tile(result, rank) for rank in scored[:count]]
            flagged = int(found.flagged[ranks].sum())
            parts.append(
                f"<h3>{title}: {flagged:,} of {len(ranks):,} flagged, the most suspect first</h3>{_KEY}{_tiles(tiles)}"
            )
    return '<p class="note">All labels, most suspect first, are in suspects.csv.</p>' + "".join(parts)


def _suspect_tile(result: CrossCheck, rank: int) -> str:
    place = int(result.suspects.places[rank])
    if result.suspects.tasks[rank] == "expression":
        return _expression_tile(result, place)
    return _points_tile(result, place, str(result.suspects.patterns[rank]))


def _expression_tile(result: CrossCheck, place: int) -> str:
    """Show what the label and the model say of a face."""
    dataset, scores = result.dataset, result.evaluation.predictions.scores[place]
    label = None if dataset.labels is None else dataset.labels[place]
    where = _where(result, place)
    if np.isnan(scores).any():
        said, seen = f"{label or 'no label'}, no face found", "no face found"
    else:
        seen = f"{EXPRESSIONS[int(scores.argmax())]} {scores.max():.0%}"
        said = f"labelled {label}, predicted {seen}" if label else f"predicted {seen}"
    from_label = f'<span class="from">{escape(str(label))}</span> → ' if label else ""
    return tile(result, place, f"Face {where}: {said}", f'{from_label}<span class="to">{seen}</span><small>{where}</small>')


def _points_tile(result: CrossCheck, place: int, pattern: str = "") -> str:
    """Show labelled and predicted points of a face."""
    error = result.evaluation.errors[place]
    where = _where(result, place)
    size = f"error {_percent(float(error))}" if np.isfinite(error) else "no error"
    said = pattern.replace("_", " ") or size
    return tile(result, place, f"Face {where}: {size} {said}", f'<span class="to">{said}</span><small>{size}<br>{where}</small>')


def _worst(result: CrossCheck) -> str:
    """Show the surest mistakes of each class, and the faces whose points are furthest off."""
    evaluation, parts = result.evaluation, []
    scores = np.nan_to_num(evaluation.predictions.scores)
    truth = evaluation.truth
    wrong = (truth >= 0) & (scores.max(1) > 0) & (scores.argmax(1) != truth)
    if wrong.any():
        chosen = [
            place
            for c in range(len(EXPRESSIONS))
            for place in _first(np.flatnonzero(wrong & (truth == c)), -scores.max(1), WORST_OF_CLASS)
        ]
        tiles = [_expression_tile(result, place) for place in chosen]
        parts.append(f"<h3>The surest mistakes of each class</h3>{_tiles(tiles)}")
    errors = evaluation.errors
    finite = np.flatnonzero(np.isfinite(errors))
    if len(finite):
        tiles = [_points_tile(result, place) for place in _first(finite, -errors, WORST_SHOWN)]
        parts.append(f"<h3>The points furthest off</h3>{_KEY}{_tiles(tiles)}")
    return "".join(parts)


def _samples(result: CrossCheck) -> str:
    count = len(result.dataset)
    chosen = np.sort(np.random.default_rng(0).choice(count, min(SAMPLES_SHOWN, count), replace=False))
    show = _points_tile if result.evaluation.keypoints is not None else _expression_tile
    tiles = [show(result, int(place)) for place in chosen]
    return f'<p class="note">Chosen at random.</p>{_KEY}{_tiles(tiles)}'


def _faults(result: CrossCheck) -> str:
    rows = []
    for kind, fault in result.faults.items():
        count = fault.get("n", fault.get("surplus", 0))
        places: Sequence[int] = fault.get("rows", ())
        examples = ", ".join(str(row) for row in places[:ROWS_SHOWN]) + (" …" if len(places) > ROWS_SHOWN else "")
        rows.append([FAULTS.get(kind, kind.replace("_", " ")), f"{count:,}", examples])
    if not rows:
        return '<p class="note">None found.</p>'
    return _table(["fault", "count", "rows"], rows, numbers=(1,))


def _reference(reference: Reference) -> str:
    """Tell how well the scores find labels that independent taggers disagree with."""
    facts = [
        _fact("Within classes", reference.macro_within_class_auroc, None, _decimal),
        _fact("Pooled", reference.pooled_auroc, None, _decimal),
        _fact("By class alone", reference.class_prior_auroc, None, _decimal),
    ]
    within = [[label, _bar_of(value, 1, _decimal(value))] for label, value in reference.per_class_auroc.items()]
    ks = [k for k in next(iter(reference.precision_at_k.values())) if k not in ("n", "base_rate")]
    precision = [
        [label, _percent(row["base_rate"]), *(_percent(row[k]) for k in ks)]
        for label, row in reference.precision_at_k.items()
    ]
    return (
        "<h3>Judged by independent taggers</h3>"
        f'<p class="note">On {reference.n:,} rows with a plurality of independent votes: the chance that a label which '
        "the taggers reject scores above one that they share (area under the ROC curve). Distrusting labels by their "
        "class alone already gives the third figure, so the first is the one that counts.</p>"
        f'<dl class="facts">{"".join(facts)}</dl><div class="columns"><div>'
        f"{_table(['class', 'area under the ROC curve'], within)}</div><div>"
        f"{_table(['class', 'base rate', *(f'first {k}' for k in ks)], precision, numbers=range(1, len(ks) + 2))}"
        '<p class="note">Share of rejected labels among the most suspect of each class.</p></div></div>'
    )


def _method(result: CrossCheck) -> str:
    entries = {
        "Intervals": "95%, from 1,000 bootstrap resamples of the rows, shifted by the bootstrap's bias.",
        "Faces that were not found": "count as wrong in accuracy and recall and as failed in the keypoints' failure "
        "rate and curve; they are absent from figures about the prediction itself.",
        "Calibration error": "mean gap between confidence and share of right predictions over 15 equal bins of "
        "confidence, weighted by their rows.",
        "Keypoint error": "mean distance over a face's labelled points, divided by the distance of the outer corners "
        "of its eyes (NME).",
        "Suspect expressions": "score = 1 − p(label | picture), the self-confidence of confident learning (Northcutt, "
        "Jiang, Chuang, JAIR 2021). A label is flagged when it is off the diagonal of the confident joint: among the "
        "classes whose probability reaches the mean probability of the rows so labelled, another one is likeliest.",
        "Suspect keypoints": "each error, less that point's median offset in the whole set, over the error that the "
        "model expects there. A face's excess x is the mean of these, or the largest over 2.55 (the expected largest "
        "of 15), whichever is more; score = x / (1 + x), flagged above x = 3. Patterns name the one change that would "
        "explain at least half: left and right swapped, the whole face shifted, one point astray.",
    }
    body = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in entries.items())
    return f'<dl class="method">{body}</dl>'


def _first(places: NDArray[np.int64], order: NDArray[Any], count: int) -> list[int]:
    """Give the places whose `order` is lowest."""
    return [int(place) for place in places[np.argsort(order[places], kind="stable")[:count]]]


def _where(result: CrossCheck, place: int) -> str:
    return f"{escape(str(result.dataset.sources[place]))}"


def _tiles(tiles: Iterable[str]) -> str:
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _fact(name: str, value: float | None, interval: metrics.Interval | None, show: Any) -> str:
    spread = f'<dd class="interval">{_interval(interval, show)}</dd>' if interval else ""
    return f'<div><dt>{name}</dt><dd class="value">{"–" if value is None else show(value)}</dd>{spread}</div>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    """Give a table whose first column heads the rows; cells are HTML."""
    kinds = [' class="number"' if column in set(numbers) else "" for column in range(len(head))]
    heads = "".join(f'<th scope="col"{kind}>{name}</th>' for name, kind in zip(head, kinds, strict=True))
    body = "".join(
        f'<tr><th scope="row">{first}</th>'
        + "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(rest, kinds[1:], strict=True))
        + "</tr>"
        for first, *rest in rows
    )
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def _bar(share: float | int | None) -> str:
    return _bar_of(share, 1, _percent(share))


def _bar_of(value: float | None, full: float, text: str) -> str:
    """Give a number with a bar below it that is full at `full`."""
    share = 0.0 if value is None else min(value / full, 1)
    return f'<span class="bar" style="--share:{share:.3f}">{text}</span>'


def _notice(text: str) -> str:
    return f'<div class="notice" role="note">{text}</div>'


def _interval(interval: metrics.Interval | None, show: Any) -> str:
    return "" if interval is None else f"{show(interval[0])} to {show(interval[1])}"


def _percent(value: float | None, decimals: int = 1) -> str:
    return "–" if value is None else f"{value:.{decimals}%}"


def _decimal(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _slug(title: str) -> str:
    return title.lower().replace(" ", "-")
