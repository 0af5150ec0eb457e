"""Splits of a dataset into training, validation and test rows that share no picture and no person."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from facekit.data.holdout import content_hash
from facekit.data.samples import SPLITS, Dataset
from facekit.errors import ConfigError, ImageError


def split_dataset(
    dataset: Dataset, fractions: Sequence[float] = (0.8, 0.2), seed: int = 0
) -> tuple[Dataset, ...]:
    """Split a dataset at random, with every expression in the same shares; its own splits are not looked at.

    Exact duplicates and rows of one group (a person, a photo) stay on one side, and so does whatever these
    connect. Every picture is read once.

    Parameters
    ----------
    dataset : Dataset
    fractions : two or three floats that sum to 1
        Shares of train and test, or of train, validation and test.
    seed : int
        Equal seeds give equal splits.

    Returns
    -------
    tuple of Dataset
        In the order of `fractions`, rows in the dataset's order, their `splits` set.

    Raises
    ------
    ConfigError
        The fractions are not two or three positive numbers that sum to 1.
    """
    if len(fractions) not in (2, 3) or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ConfigError(f"fractions are {tuple(fractions)}: expected two or three, above 0, that sum to 1")
    labels = np.zeros(len(dataset), np.int64)
    if dataset.labels is not None:
        labels = np.unique(dataset.labels.astype(str), return_inverse=True)[1]
    sides = _assign(_clusters(dataset), labels, np.array(fractions), np.random.default_rng(seed))
    names = SPLITS if len(fractions) == 3 else (SPLITS[0], SPLITS[-1])
    parts = (dataset.select(sides == side) for side in range(len(fractions)))
    return tuple(
        replace(part, splits=np.full(len(part), name, object), skipped=())
        for part, name in zip(parts, names, strict=True)
    )


def _clusters(dataset: Dataset) -> NDArray[np.int64]:
    """Give the number (N,) of the set of rows to which duplicates and groups connect each row."""
    parents = np.arange(len(dataset))

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    for keys in (_hashes(dataset), () if dataset.groups is None else dataset.groups):
        first: dict[object, int] = {}
        for place, key in enumerate(keys):
            if key is not None:
                parents[root(place)] = root(first.setdefault(key, place))
    return np.array([root(place) for place in range(len(dataset))], np.int64)


def _hashes(dataset: Dataset) -> Iterable[bytes | None]:
    for place in range(len(dataset)):
        try:
            yield content_hash(dataset.load(place))
        except ImageError:  # an unreadable picture is nothing's duplicate; whoever uses the row reports it
            yield None


def _assign(
    clusters: NDArray[np.int64],
    labels: NDArray[np.int64],
    fractions: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Give each row's side (N,): large clusters first, where most missed, then lone rows by quota."""
    sides = np.zeros(len(labels), np.int64)
    missing = fractions[:, None] * np.bincount(labels)  # (sides, C)
    weights = 1 / np.maximum(np.bincount(labels), 1)
    order = rng.permutation(len(labels))
    order = order[np.argsort(clusters[order], kind="stable")]
    members = np.split(order, np.flatnonzero(np.diff(clusters[order])) + 1)
    for cluster in sorted((rows for rows in members if len(rows) > 1), key=len, reverse=True):
        counts = np.bincount(labels[cluster], minlength=missing.shape[1])
        cost = (weights / fractions[:, None] * ((missing - counts) ** 2 - missing**2)).sum(1)
        side = int(cost.argmin())
        sides[cluster] = side
        missing[side] -= counts
    lone = rng.permutation(np.array([rows[0] for rows in members if len(rows) == 1], np.int64))
    for label in range(missing.shape[1]):
        rows = lone[labels[lone] == label]
        quota = np.maximum(missing[:, label], 0)
        ends = np.round(np.cumsum(quota) / max(quota.sum(), 1e-9) * len(rows)).astype(np.int64)
        sides[rows] = np.searchsorted(ends[:-1], np.arange(len(rows)), side="right")
    return sides
