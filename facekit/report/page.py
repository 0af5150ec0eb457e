"""The page of a cross-check: one HTML file that needs no other, for any screen, light or dark, and paper."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from importlib import resources

import numpy as np

from facekit import __version__
from facekit.crosschecking import CrossCheck
from facekit.report import parts, sections
from facekit.suspects import EXCESS, LARGEST_OF_FACE

SKIPPED_SHOWN = 12

METHOD = {
    "Intervals": "95%, from 1,000 bootstrap resamples of the rows, shifted by the bootstrap's bias.",
    "Faces that were not found": "They count as wrong in accuracy and recall, and as failed in the "
    "keypoints' failure rate and curve; they are absent from figures about the prediction itself.",
    "Calibration error": "Mean gap between confidence and share of right predictions over 15 equal bins of "
    "confidence, weighted by their rows.",
    "Keypoint error": "Mean distance over a face's labelled points, divided by the distance of the outer "
    "corners of its eyes (NME).",
    "Suspect expressions": "The score is 1 - p(label | picture), the self-confidence of confident learning "
    "(Northcutt, Jiang, Chuang, JAIR 2021); p is the answer of the head that learnt from FER+'s ten taggers. "
    "Where the weights have none, a head was named, or predictions are out of fold, p is the prediction's "
    "own. A label is flagged when it is off the diagonal of the confident joint: among the classes whose "
    "probability reaches the mean that rows so labelled have for them, the likeliest is another one.",
    "Suspect keypoints": "Each error, less that point's median offset in the whole set, is divided by the "
    "error that the model expects there. A face's excess x is their mean, or the largest over "
    f"{LARGEST_OF_FACE} (what the largest of 15 is expected to be), whichever is more. The score is "
    f"x / (1 + x); faces above x = {EXCESS:g} are flagged. A pattern names the one change that would explain "
    "a third of the excess or more: left and right swapped, the whole face shifted, one point astray.",
}


def page(result: CrossCheck) -> str:
    """Give the whole page as HTML."""
    contents = {
        "Overview": _overview(result),
        "Expressions": sections.expressions(result),
        "Keypoints": sections.keypoints(result),
        "Suspect labels": sections.suspect_labels(result),
        "Worst cases": sections.worst_cases(result),
        "Samples": sections.samples(result),
        "Dataset faults": sections.faults(result),
        "Method": _method(),
    }
    shown = {title: content for title, content in contents.items() if content}
    links = "".join(f'<li><a href="#{_slug(title)}">{title}</a></li>' for title in shown)
    body = "".join(
        f'<section id="{_slug(title)}"><h2>{title}</h2>{content}</section>'
        for title, content in shown.items()
    )
    style = (resources.files("facekit.report") / "style.css").read_text(encoding="utf-8")
    title = _title(result)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Cross-check of {title}</title><style>{style}</style></head><body>"
        f'<header><p class="eyebrow">facekit cross-check</p><h1>{title}</h1>{_meta(result)}'
        f'<p class="lede">{_verdict(result)}</p></header>'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav><main>{body}</main>'
        f"<footer>facekit {__version__}. This page needs no other file; the tables beside it hold every row."
        "</footer></body></html>\n"
    )


def _title(result: CrossCheck) -> str:
    split = result.evaluation.split
    return escape(f"{result.dataset.name}, {split}" if split else result.dataset.name)


def _meta(result: CrossCheck) -> str:
    evaluation = result.evaluation
    source = "the detector" if evaluation.boxes == "detector" else "the labels"
    entries = [
        f"<code>{escape(evaluation.path)}</code>",
        f"{len(result.dataset):,} samples",
        f"format {result.dataset.format}",
        f"weights {escape(evaluation.weights)}",
        f"face boxes from {source}",
    ]
    return f'<p class="meta">{" · ".join(entries)}</p>'


def _verdict(result: CrossCheck) -> str:
    """Say in a few sentences what the cross-check found."""
    expression, keypoints = result.evaluation.expression, result.evaluation.keypoints
    sentences = []
    if expression is not None and expression.accuracy is not None:
        spread = parts.between(expression.ci95.get("accuracy"), parts.percent)
        agreed = f"<b>{parts.percent(expression.accuracy)}</b> of {parts.count(expression.n, 'label')}"
        sentences.append(f"The expression model agrees with {agreed} ({spread}).")
    if keypoints is not None and keypoints.nme is not None:
        spread = parts.between(keypoints.ci95.get("nme"), parts.fine_percent)
        share = f"<b>{parts.fine_percent(keypoints.nme)}</b> of the distance of the eyes"
        sentences.append(f"Predicted points lie {share} from the labelled ones ({spread}).")
    if len(result.suspects):
        flagged = int(result.suspects.flagged.sum())
        sentences.append(f"<b>{flagged:,}</b> of {parts.count(len(result.suspects), 'label')} look wrong.")
    else:
        sentences.append("The dataset has no labels, so there is only what was predicted.")
    missed = int(np.isnan(result.evaluation.predictions.box_scores).sum())
    if missed:
        sentences.append(f"In {parts.count(missed, 'picture')} no face was found.")
    return " ".join(sentences)


def _overview(result: CrossCheck) -> str:
    figures: list[str] = []
    for metrics, shown in (
        (
            result.evaluation.expression,
            {
                "accuracy": ("Accuracy", parts.percent),
                "balanced_accuracy": ("Balanced accuracy", parts.percent),
                "macro_f1": ("Macro F1", parts.percent),
                "ece": ("Calibration error", parts.percent),
                "nll": ("Log loss", parts.decimal),
                "brier": ("Brier score", parts.decimal),
            },
        ),
        (
            result.evaluation.keypoints,
            {
                "nme": ("Keypoint error", parts.fine_percent),
                "failure_rate_08": ("Faces over 8%", parts.percent),
                "auc_08": ("Area to 8%", parts.decimal),
                "rmse_96": ("RMSE at 96 px", parts.pixels),
            },
        ),
    ):
        if metrics is not None and metrics.n:
            for name, (title, show) in shown.items():
                figures.append(parts.fact(title, getattr(metrics, name), metrics.ci95.get(name), show))
    return (parts.facts(figures) if figures else "") + "".join(_notices(result))


def _notices(result: CrossCheck) -> Iterator[str]:
    """Say what must be known to read the figures rightly."""
    evaluation = result.evaluation
    seen = 0 if evaluation.seen is None else int(evaluation.seen.sum())
    if seen:
        yield parts.notice(
            f"<b>{seen:,} of these {parts.count(len(result.dataset), 'sample')} were in the training data "
            f"of {escape(evaluation.weights)}.</b> There the model repeats what it was taught: figures are "
            "too good and wrong labels look right. For such rows use predictions out of fold: <code>facekit "
            "train --folds 5</code>, then <code>facekit crosscheck --out-of-fold folds.npz</code>."
        )
    if evaluation.expression is not None and evaluation.expression.other_labels:
        others = evaluation.expression.other_labels.items()
        named = ", ".join(f"{escape(name)} ({number:,})" for name, number in others)
        yield parts.notice(f"Labels that the model does not tell are not in the figures: {named}.")
    if evaluation.skipped:
        rows = "".join(
            f"<li>row {row.row}, <code>{escape(row.source)}</code>: {escape(row.reason)}</li>"
            for row in evaluation.skipped[:SKIPPED_SHOWN]
        )
        more = len(evaluation.skipped) - SKIPPED_SHOWN
        rest = f"<li>and {more:,} more, in summary.json</li>" if more > 0 else ""
        left_out = parts.count(len(evaluation.skipped), "row")
        yield parts.notice(f"{left_out} could not be read and were left out:<ul>{rows}{rest}</ul>")


def _method() -> str:
    entries = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in METHOD.items())
    return f'<dl class="method">{entries}</dl>'


def _slug(title: str) -> str:
    return title.lower().replace(" ", "-")
