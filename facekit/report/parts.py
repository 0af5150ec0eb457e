"""The parts that the page is put together from: figures, tables, bars, notices and tiles, as HTML."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from facekit.metrics import Interval

Show = Callable[[float | None], str]
"""How a number is written."""

NOTHING = "n/a"


def fact(name: str, value: float | None, interval: Interval | None, show: Show) -> str:
    """Give a headline figure, with its interval below."""
    spread = f'<dd class="interval">{between(interval, show)}</dd>' if interval else ""
    return f'<div><dt>{name}</dt><dd class="value">{show(value)}</dd>{spread}</div>'


def facts(entries: Iterable[str]) -> str:
    """Give headline figures in a row."""
    return f'<dl class="facts">{"".join(entries)}</dl>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Collection[int] = ()) -> str:
    """Give a table whose first column heads the rows; cells are HTML, columns of `numbers` stand right."""
    kinds = [' class="number"' if column in numbers else "" for column in range(len(head))]
    heads = "".join(f'<th scope="col"{kind}>{name}</th>' for name, kind in zip(head, kinds, strict=True))
    body = ""
    for first, *rest in rows:
        cells = "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(rest, kinds[1:], strict=True))
        body += f'<tr><th scope="row">{first}</th>{cells}</tr>'
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def bar(value: float | None, text: str, full: float = 1) -> str:
    """Give a number with a bar below it that is full at `full`."""
    share = 0.0 if value is None else min(value / full, 1)
    return f'<span class="bar" style="--share:{share:.3f}">{text}</span>'


def tiles(entries: Iterable[str], kind: str = "") -> str:
    """Give pictures in a grid; `kind` may be "large"."""
    return f'<div class="tiles {kind}">{"".join(entries)}</div>'


def point_key(*kinds: str) -> str:
    """Say which marks are which points; `kinds` are "labelled" and "predicted"."""
    keys = "".join(
        '<span class="key"><svg viewBox="0 0 10 10" aria-hidden="true">'
        f'<circle class="{kind}" cx="5" cy="5" r="4"/></svg>{kind} point</span>'
        for kind in kinds
    )
    return f'<p class="note">{keys}</p>'


def notice(text: str) -> str:
    """Give a text that must not be overlooked."""
    return f'<div class="notice" role="note">{text}</div>'


def note(text: str) -> str:
    """Give a remark."""
    return f'<p class="note">{text}</p>'


def columns(*entries: str) -> str:
    """Give parts side by side where the screen is wide."""
    return f'<div class="columns">{"".join(entries)}</div>'


def between(interval: Interval | None, show: Show) -> str:
    """Write an interval."""
    return "" if interval is None else f"{show(interval[0])} to {show(interval[1])}"


def percent(value: float | None) -> str:
    """Write a share."""
    return NOTHING if value is None else f"{value:.1%}"


def fine_percent(value: float | None) -> str:
    """Write a small share."""
    return NOTHING if value is None else f"{value:.2%}"


def decimal(value: float | None) -> str:
    """Write a number of about 1."""
    return NOTHING if value is None else f"{value:.3f}"


def pixels(value: float | None) -> str:
    """Write a distance."""
    return NOTHING if value is None else f"{value:.2f} px"


def count(number: int, noun: str) -> str:
    """Write how many there are of something."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
