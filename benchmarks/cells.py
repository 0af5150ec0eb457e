"""How figures of results files are written in pages: as cells, rows and Markdown tables, with a caption."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from charts import number

Result = dict[str, Any]
Figure = dict[str, Any]

SETS = ("FER2013 PublicTest", "RAF-DB, held out", "muxspace, held out, whole pictures")
"""The sets that stand beside each other by class and in the reliability diagram."""


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
    cores = machine["cores"]
    hardware = f"{machine['processor']}, {cores} core{'s' if cores > 1 else ''}"
    if machine["accelerator"] and result["device"] == "accelerator":
        hardware = f"{machine['accelerator']} ({hardware})"
    skipped = "".join(f"; {one['case']}: {one['reason']}" for one in result.get("skipped", ()))
    return f"\n{hardware}, torch {machine['packages']['torch']}, {result['date']}{skipped}.\n"
