"""What a video shows of each person over time, gathered in constant memory, as a summary and a plot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from facekit.plots import GRID, INK, MUTED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from facekit.results import Face

COLOURS: Final = MappingProxyType(
    {
        "angry": "#d55e00",
        "disgust": "#009e73",
        "fear": "#cc79a7",
        "happy": "#f0c43c",
        "sad": "#0072b2",
        "surprise": "#56b4e9",
        "neutral": "#c9ced6",
        "contempt": "#8c6d4f",
    }
)
"""Of the expressions; told apart by the colour-blind too (after M. Okabe and K. Ito, 2008)."""

BINS = 600
"""Most steps of a timeline; they become twice as long when a video outgrows them."""

FIRST_STEP = 0.1
"""Seconds."""


@dataclass
class Person:
    """One id over the whole video.

    Attributes
    ----------
    id : int
    first, last : float
        Seconds between which it was seen.
    frames : int
        In which it was seen.
    labels : Counter
        Frames of each expression.
    steps : dict of int to (C + 1,) float64
        For each step of the timeline, the sums of the probabilities and the number of frames.
    """

    id: int
    first: float
    last: float
    frames: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    steps: dict[int, NDArray[np.float64]] = field(default_factory=dict)


class Timeline:
    """Gathers the faces of a video, frame by frame."""

    def __init__(self) -> None:
        self._people: dict[int, Person] = {}
        self._labels: tuple[str, ...] = ()
        self.step, self.end = FIRST_STEP, 0.0

    def add(self, time: float, faces: Sequence[tuple[int, Face]]) -> None:
        """Take a frame's time, seconds, and its faces, each with its id."""
        self.end = max(self.end, time)
        while time >= self.step * BINS:
            self._double()
        for name, face in faces:
            person = self._people.setdefault(name, Person(name, time, time))
            person.last, person.frames = time, person.frames + 1
            person.labels[face.expression.label] += 1
            self._labels, scores = zip(*face.expression.scores.items(), strict=True)
            step = person.steps.setdefault(int(time / self.step), np.zeros(len(scores) + 1))
            step += [*scores, 1.0]

    def _double(self) -> None:
        self.step *= 2
        for person in self._people.values():
            steps: dict[int, NDArray[np.float64]] = {}
            for place, values in person.steps.items():
                steps[place // 2] = steps.get(place // 2, 0) + values
            person.steps = steps

    def people(self) -> list[Person]:
        """Give everybody, those seen longest first."""
        return sorted(self._people.values(), key=lambda person: (-person.frames, person.id))

    def plot(self, most: int = 6) -> Figure:
        """Draw the expressions of the people seen longest, at most so many, one panel each.

        Parameters
        ----------
        most : int

        Returns
        -------
        Figure
        """
        from matplotlib.figure import Figure

        shown = sorted(self.people()[:most], key=lambda person: person.id)
        rows = max(1, len(shown))
        figure = Figure(figsize=(8.4, 0.75 + 1.25 * rows), layout="constrained")
        panels = figure.subplots(rows, 1, sharex=True, squeeze=False).ravel()
        for axes, person in zip(panels, shown, strict=False):
            self._draw(axes, person)
        last = panels[-1]
        last.set_xlabel("seconds", fontsize=9, color=INK)
        last.set_xlim(0, max(self.end, self.step))
        if not shown:
            last.text(0.5, 0.5, "no face", transform=last.transAxes, ha="center", color=MUTED)
        else:
            handles, labels = last.get_legend_handles_labels()
            figure.legend(
                handles,
                labels,
                loc="outside upper center",
                ncols=8,
                frameon=False,
                fontsize=8,
                labelcolor=INK,
            )
        return figure

    def _draw(self, axes: Any, person: Person) -> None:
        """Draw one person's probabilities as bands that fill the height where the face was seen."""
        count = int(self.end / self.step) + 1
        means = np.full((count, len(self._labels)), np.nan)
        for place, values in person.steps.items():
            means[place] = values[:-1] / values[-1]
        edges = np.arange(count + 1) * self.step
        top = np.where(np.isnan(means[:, 0]), np.nan, 0.0)
        for column, label in enumerate(self._labels):
            below, top = top, top + means[:, column]
            axes.stairs(top, edges, baseline=below, fill=True, color=COLOURS[label], label=label)
        axes.set_title(_caption(person), fontsize=9, loc="left", color=INK)
        axes.set(ylim=(0, 1), yticks=(0, 0.5, 1))
        axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(GRID)


def _caption(person: Person) -> str:
    label, frames = person.labels.most_common(1)[0]
    return f"#{person.id}: {label} in {frames / person.frames:.0%} of its frames"
