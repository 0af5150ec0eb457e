"""Charts of arrays as matplotlib figures, without pyplot's state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1d2129"
MUTED = "#667080"
GRID = "#dfe3e8"
PREDICTED = "#2563c4"
LABELLED = "#d1570f"
"""The colours of all charts; each stands for one thing, so that a page may give it another shade."""

SHADES = "Blues"
SAMPLE_COLUMNS = 6

FACE_LINES = ((7, 6), (8, 9), (3, 0, 2), (4, 1, 5), (11, 13, 12, 14, 11))
"""Brows, eyes and mouth as lines between keypoints, by their places in schema.KEYPOINTS."""


def confusion(counts: NDArray[np.integer[Any]], labels: Sequence[str]) -> Figure:
    """Draw a confusion matrix, shaded by each row's shares.

    Parameters
    ----------
    counts : (C, C) int
        Rows: truth; columns: predicted.
    labels : sequence of C str

    Returns
    -------
    Figure
    """
    figure, axes = _figure(5.2, 4.6)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap=SHADES, vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.55 else INK
        axes.text(column, row, f"{count}", ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(labels)), labels, rotation=40, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="predicted", ylabel="labelled")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def reliability(counts: NDArray[Any], confidence: NDArray[Any], accuracy: NDArray[Any]) -> Figure:
    """Draw how often predictions are right against how sure they are, over how many there are.

    Parameters
    ----------
    counts, confidence, accuracy : (bins,) float
        Rows a bin, their mean confidence, their share of right ones; NaN in empty bins.

    Returns
    -------
    Figure
    """
    figure, axes = _figure(4.2, 3.6)
    width = 1 / len(counts)
    middles = (np.arange(len(counts)) + 0.5) * width
    axes.bar(middles, counts / max(counts.max(), 1) * 0.25, width * 0.9, color=GRID)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    some = counts > 0
    axes.plot(confidence[some], accuracy[some], color=PREDICTED, linewidth=1.8)
    axes.scatter(confidence[some], accuracy[some], 14, color=PREDICTED, zorder=3)
    axes.text(0.66, 0.73, "calibrated", color=MUTED, fontsize=8, rotation=42, rotation_mode="anchor")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share of right predictions")
    return figure


def cumulative(errors: NDArray[Any], shares: NDArray[Any], limit: float) -> Figure:
    """Draw a cumulative error distribution up to a limit.

    Parameters
    ----------
    errors, shares : (N,) float
        Sorted errors, and the share of all at or below each.
    limit : float
        Where a face counts as failed; the right end of the picture.

    Returns
    -------
    Figure
    """
    figure, axes = _figure(4.2, 3.2)
    places, heights = np.concatenate([[0], errors, [max(limit, errors.max(initial=0))]]), [0, *shares]
    heights.append(heights[-1])
    axes.step(places, heights, where="post", color=PREDICTED, linewidth=1.8)
    at_limit = float(shares[errors <= limit].max(initial=0))
    axes.set(xlim=(0, limit), ylim=(0, 1.02), xlabel="error / distance of the eyes", ylabel="share of faces")
    text = f"{at_limit:.1%} within {limit:g}"
    axes.text(0.97, 0.05, text, transform=axes.transAxes, ha="right", fontsize=9, color=INK)
    return figure


def histogram(
    values: Sequence[NDArray[Any]], names: Sequence[str], edges: ArrayLike, xlabel: str, ylabel: str
) -> Figure:
    """Draw the distributions of up to two sets of values, the first in the predictions' colour.

    Parameters
    ----------
    values : sequence of (N,) float
        Values beyond the edges are counted in the outer bins.
    names : sequence of str
        What each set is.
    edges : (bins + 1,) float
    xlabel, ylabel : str

    Returns
    -------
    Figure
    """
    figure, axes = _figure(4.2, 3.2)
    edges = np.asarray(edges, np.float64)
    for part, name, colour in zip(values, names, (PREDICTED, LABELLED), strict=False):
        counts, _ = np.histogram(part.clip(edges[0], edges[-1]), edges)
        axes.stairs(counts, edges, color=colour, linewidth=1.6)
        axes.stairs(counts, edges, fill=True, color=colour, alpha=0.18, label=name)
    axes.set(xlim=(edges[0], edges[-1]), xlabel=xlabel, ylabel=ylabel)
    if len(values) > 1:
        axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    return figure


def mean_face(
    points: NDArray[Any], errors: NDArray[Any], offsets: NDArray[Any], texts: Sequence[str]
) -> Figure:
    """Draw each keypoint's error on a mean face, twice as large as it is.

    Parameters
    ----------
    points : (15, 2) float
        The mean face, in the order of schema.KEYPOINTS; y points down.
    errors : (15,) float
        Mean error of each point, in the units of `points`: the circle's radius; NaN without labels.
    offsets : (15, 2) float
        Mean of predicted less labelled place, in the same units: the arrow.
    texts : sequence of 15 str
        Written below each point.

    Returns
    -------
    Figure
    """
    from matplotlib.patches import Circle

    figure, axes = _figure(4.4, 4.4)
    for line in FACE_LINES:
        axes.plot(*points[list(line)].T, color=GRID, linewidth=3, solid_capstyle="round", zorder=1)
    for (x, y), radius, (dx, dy), text in zip(points, errors * 2, offsets * 2, texts, strict=True):
        axes.plot(x, y, ".", color=INK, markersize=4, zorder=3)
        if np.isnan(radius):
            continue
        axes.add_patch(Circle((x, y), radius, color=PREDICTED, alpha=0.3, linewidth=0, zorder=2))
        axes.plot([x, x + dx], [y, y + dy], color=LABELLED, linewidth=1.6, zorder=4)
        axes.text(x, y + radius + 0.012, text, ha="center", va="top", fontsize=7, color=INK, zorder=5)
    axes.set(xlim=(-0.62, 0.62), ylim=(0.62, -0.62), aspect="equal")
    axes.set_axis_off()
    return figure


def samples(
    pictures: Sequence[NDArray[np.uint8]],
    labelled: NDArray[Any],
    predicted: NDArray[Any],
    titles: Sequence[str],
) -> Figure:
    """Draw a grid of pictures with labelled and predicted points.

    Parameters
    ----------
    pictures : sequence of (H, W) or (H, W, 3) uint8
    labelled, predicted : (N, 15, 2) float, pixels of each picture; NaN where there is no point
    titles : sequence of str

    Returns
    -------
    Figure
    """
    from matplotlib.figure import Figure

    rows = max(1, -(-len(pictures) // SAMPLE_COLUMNS))
    figure = Figure(figsize=(1.45 * SAMPLE_COLUMNS, 1.62 * rows), layout="constrained")
    grid = figure.subplots(rows, SAMPLE_COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, picture, truth, found, title in zip(grid, pictures, labelled, predicted, titles, strict=False):
        axes.imshow(picture, cmap="gray" if picture.ndim == 2 else None)
        axes.scatter(*truth.T, 16, facecolors="none", edgecolors="#ff9d3c", linewidths=1.0)
        axes.scatter(*found.T, 4, color="#4da3ff", linewidths=0)
        axes.set_title(title, fontsize=7, color=INK)
        axes.set(xlim=(-0.5, picture.shape[1] - 0.5), ylim=(picture.shape[0] - 0.5, -0.5))
    return figure


def training_curves(history: Mapping[str, Sequence[float]]) -> Figure:
    """Draw how losses and held-out figures went over the epochs, one panel each.

    A figure of watched training samples (``training_...``) stands in the panels of its held-out counterparts.

    Parameters
    ----------
    history : mapping of name to sequence of float, one an epoch

    Returns
    -------
    Figure
    """
    seen = {name.removeprefix("training_"): name for name in history if name.startswith("training_")}
    names = [name for name in history if name not in ("epoch", "seconds", "sigma_factor", *seen.values())]
    columns = min(3, len(names))
    figure, panels = _panels(-(-len(names) // columns), columns)
    for axes, name in zip(panels, names, strict=False):
        values = history[name]
        axes.plot(range(1, len(values) + 1), values, color=PREDICTED, linewidth=1.8, label="held out")
        for training in [seen[kind] for kind in seen if name == kind or name.endswith(f"_{kind}")]:
            axes.plot(
                range(1, len(values) + 1), history[training], color=LABELLED, linewidth=1.4, label="training"
            )
            axes.legend(frameon=False, fontsize=7, labelcolor=INK)
        axes.set_title(f"{name.replace('_', ' ')}: {values[-1]:.4g}", fontsize=9, loc="left", color=INK)
        axes.set_xlabel("epoch")
        axes.grid(color=GRID)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    return figure


def _panels(rows: int, columns: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure((3.4 * columns, 2.5 * rows), layout="constrained")
    return figure, list(np.ravel(figure.subplots(rows, columns)))


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Give a figure, inches, with one plain pair of axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=8)
    axes.xaxis.label.set(color=INK, size=9)
    axes.yaxis.label.set(color=INK, size=9)
    axes.set_axisbelow(True)
    return figure, axes
