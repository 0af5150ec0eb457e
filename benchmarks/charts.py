"""Charts as SVG text, readable on light pages and dark ones; the same figures give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH = 760
LEFT, RIGHT, TOP, BOTTOM = 84, 160, 56, 52
COLOURS = 6
LETTER = 7.4
"""Mean width of a letter, pixels, by which labels keep clear of each other."""

STYLE = """
:root { --paper: #ffffff; --ink: #1d2129; --muted: #667080; --grid: #dfe3e8;
  --c0: #2563c4; --c1: #d1570f; --c2: #15803d; --c3: #9333ea; --c4: #0e7490; --c5: #b4235f; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14181f; --ink: #e6e9ee; --muted: #98a2b3; --grid: #2c333d;
    --c0: #6ea8ff; --c1: #ff9d5c; --c2: #4ade80; --c3: #c79bff; --c4: #4cc9e0; --c5: #ff8ab3; } }
text { fill: var(--ink); font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  stroke: var(--paper); stroke-width: 4px; stroke-linejoin: round; paint-order: stroke; }
.title { font-size: 16px; font-weight: 600; } .muted { fill: var(--muted); font-size: 12px; }
.grid { stroke: var(--grid); } .paper { fill: var(--paper); } .end { text-anchor: end; }
.middle { text-anchor: middle; }
"""

Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """Takes values to pixels, evenly or by their logarithms.

    Attributes
    ----------
    low, high : float
    start, stop : float
        The pixels of low and high.
    log : bool
    """

    low: float
    high: float
    start: float
    stop: float
    log: bool

    def __call__(self, value: float) -> float:
        """Give the pixel of a value."""
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (at - low) / ((high - low) or 1) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """Give round values within the scale, evenly spaced where it covers less than a power of ten."""
        if self.log and self.high >= 10 * self.low:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1, 2, 5) if self.high / self.low < 150 else (1,)
            every = [step * 10.0**decade for decade in decades for step in steps]
        else:
            rough = (self.high - self.low) / 5 or 1
            size = 10.0 ** math.floor(math.log10(rough))
            step = next(size * times for times in (1, 2, 5, 10) if size * times >= rough)
            every = [step * count for count in range(math.ceil(self.low / step), int(self.high / step) + 1)]
        return [tick for tick in every if self.low <= tick * (1 + 1e-9) and tick <= self.high * (1 + 1e-9)]


def scale(values: Sequence[float], start: float, stop: float, *, log: bool, zero: bool = False) -> Scale:
    """Fit a scale to values, with some room around them."""
    low, high = min(values), max(values)
    if log:
        return Scale(low / 1.25, high * 1.25, start, stop, True)
    room = (high - low or high or 1) * 0.08
    return Scale(0 if zero else low - room, high + room, start, stop, False)


def bars(title: str, note: str, unit: str, rows: Sequence[tuple[str, float, Point]]) -> str:
    """Draw a bar a row: what it is, its value, and the range of its spread."""
    height, left = TOP + 34 * len(rows) + 16, 24 + LETTER * max(len(name) for name, _, _ in rows)
    across = scale([high for _, _, (_, high) in rows], left, WIDTH - RIGHT, log=False, zero=True)
    parts = []
    for place, (name, value, (low, high)) in enumerate(rows):
        y = TOP + 34 * place
        middle = y + 15
        parts += [
            f'<text x="{left - 10:.1f}" y="{middle:.1f}" class="end">{escape(name)}</text>',
            f'<rect x="{left:.1f}" y="{y:.1f}" width="{across(value) - left:.1f}" height="22" rx="3" '
            f'style="fill: var(--c{0 if not place else 1})"/>',
            f'<line x1="{across(low):.1f}" x2="{across(high):.1f}" y1="{y + 11:.1f}" y2="{y + 11:.1f}" '
            'style="stroke: var(--ink)" stroke-width="1.5"/>',
            f'<text x="{across(high) + 8:.1f}" y="{middle:.1f}">{number(value)} {escape(unit)}</text>',
        ]
    return _page(title, note, height, parts)


def lines(
    title: str,
    note: str,
    axes: tuple[str, str],
    series: Mapping[str, Sequence[Point]],
    *,
    log: tuple[bool, bool] = (False, False),
    dashed: Callable[[str], bool] = lambda _: False,
) -> str:
    """Draw a line a series, with its name at its end; dashed ones, which nobody measured, are gray."""
    height = 420
    beside = max(RIGHT, 9 + LETTER * max(map(len, series)))
    x, y, parts = _axes([point for points in series.values() for point in points], axes, log, height, beside)
    colour, ends = -1, []
    for name, points in series.items():
        colour += not dashed(name)
        shade = "muted" if dashed(name) else f"c{colour % COLOURS}"
        style = f"stroke: var(--{shade}); fill: none; stroke-width: 2"
        style += "; stroke-dasharray: 5 4" if dashed(name) else ""
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
        parts.append(f'<polyline points="{path}" style="{style}"/>')
        if not dashed(name):
            parts += [
                f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3" style="fill: var(--{shade})"/>'
                for a, b in points
            ]
        ends.append((y(points[-1][1]), x(points[-1][0]), name, shade))
    below = -math.inf
    for at, right, name, shade in sorted(ends):
        below = max(at, below + 16)
        parts.append(
            f'<text x="{right + 9:.1f}" y="{below + 4:.1f}" style="fill: var(--{shade})">'
            f"{escape(name)}</text>"
        )
    return _page(title, note, height, parts)


def scatter(
    title: str,
    note: str,
    axes: tuple[str, str],
    points: Sequence[tuple[str, float, float, int]],
    *,
    log: tuple[bool, bool] = (False, False),
) -> str:
    """Draw named points (name, x, y, colour); names stand where they cover nothing."""
    height = 420
    x, y, parts = _axes([(a, b) for _, a, b, _ in points], axes, log, height)
    taken = [(x(a) - 6, y(b) - 6, x(a) + 6, y(b) + 6) for _, a, b, _ in points]
    for name, a, b, colour in points:
        left, top, long = x(a), y(b), LETTER * len(name)
        places = [(left + 10, top + 4), (left - 10 - long, top + 4)]
        places += [(left - long * part, top + shift) for shift in (-11, 20, -26, 35) for part in (0.5, 0, 1)]
        boxes = [(px, py - 12, px + long, py + 3) for px, py in places]
        inside = [k for k, box in enumerate(boxes) if box[0] >= LEFT and box[2] <= WIDTH]
        free = next((k for k in inside if not any(_meet(boxes[k], other) for other in taken)), 0)
        taken.append(boxes[free])
        parts += [
            f'<circle cx="{left:.1f}" cy="{top:.1f}" r="5" style="fill: var(--c{colour})"/>',
            f'<text x="{places[free][0]:.1f}" y="{places[free][1]:.1f}">{escape(name)}</text>',
        ]
    return _page(title, note, height, parts)


def number(value: float) -> str:
    """Give a number as people read it: three digits, thousands apart."""
    if value >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}" if value else "0"


def _axes(
    points: Sequence[Point],
    names: tuple[str, str],
    log: tuple[bool, bool],
    height: int,
    beside: float = RIGHT,
) -> tuple[Scale, Scale, list[str]]:
    right, bottom = WIDTH - beside, height - BOTTOM
    x = scale([a for a, _ in points], LEFT, right, log=log[0])
    y = scale([b for _, b in points], bottom, TOP, log=log[1])
    parts = []
    for tick in y.ticks():
        parts += [
            f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>',
            f'<text class="muted end" x="{LEFT - 8}" y="{y(tick) + 4:.1f}">{number(tick)}</text>',
        ]
    parts += [
        f'<text class="muted middle" x="{x(tick):.1f}" y="{bottom + 18}">{number(tick)}</text>'
        for tick in x.ticks()
    ]
    parts += [
        f'<text class="muted middle" x="{(LEFT + right) / 2:.1f}" y="{bottom + 38}">'
        f"{escape(names[0])}</text>",
        f'<text class="muted middle" transform="translate(16 {(TOP + bottom) / 2:.1f}) rotate(-90)">'
        f"{escape(names[1])}</text>",
    ]
    return x, y, parts


def _meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _page(title: str, note: str, height: float, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n'
        f'<rect class="paper" width="{WIDTH}" height="{height:.0f}" rx="8"/>\n'
        f'<text class="title" x="24" y="26">{escape(title)}</text>\n'
        f'<text class="muted" x="24" y="44">{escape(note)}</text>\n'
    )
    return head + "\n".join(parts) + "\n</svg>\n"
