"""Write the tables of README and docs from the results files.

    python benchmarks/render.py [--check]

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``; what is between them is replaced. With
--check nothing is written, and the exit status says whether a page is stale.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import facekit

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / facekit.__version__
MARK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

Result = dict[str, Any]


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


def accuracy(result: Result) -> str:
    """Give the figures of the shipped weights, a line a set."""
    rows = []
    for name, told in result["sets"].items():
        if told["expression"]:
            figures, ci = told["expression"], told["expression"]["ci95"]
            rows.append(
                (
                    name,
                    f"{figures['n']:,}",
                    percent(figures["accuracy"], ci["accuracy"]),
                    percent(figures["balanced_accuracy"]),
                    percent(figures["ece"]),
                )
            )
    return table(("expressions", "n", "accuracy (95% interval)", "balanced", "calibration error"), rows)


def keypoints(result: Result) -> str:
    """Give the keypoint errors of the shipped weights."""
    plain, jittered = result["sets"]["Helen, held out"]["keypoints"], result["Helen, held out, jittered"]
    rows = [
        (name, str(figures["n"]), percent(figures["nme"], figures["ci95"]["nme"]), percent(figures["auc_08"]))
        for name, figures in (
            ("label boxes", plain),
            ("label boxes off by up to 5%", jittered),
        )
    ]
    return table(("Helen, held out", "n", "NME (95% interval)", "area under the curve to 8%"), rows)


def latency(result: Result) -> str:
    """Give the parts of a picture's time."""
    parts = result["parts"]
    names = [name.partition(" ")[2] for name in parts if name.startswith("auto ")]
    rows = [
        (
            name,
            *(
                "{:.2f} ({:.2f} to {:.2f})".format(
                    parts[f"{precision} {name}"]["median_ms"], *parts[f"{precision} {name}"]["quartiles_ms"]
                )
                for precision in ("auto", "fp32")
            ),
        )
        for name in names
    ]
    machine = result["machine"]
    caption = f"{machine['processor']}, one thread, torch {machine['packages']['torch']}, {result['date']}\n"
    return table(("part", "automatic precision, ms", "fp32, ms"), rows) + "\n" + caption


TABLES: dict[str, tuple[str, Callable[[Result], str]]] = {
    "accuracy": ("accuracy--*.json", accuracy),
    "keypoints": ("accuracy--*.json", keypoints),
    "latency": ("latency--*--cpu.json", latency),
}
"""Table to the results file it comes from, the last by name, and what draws it."""


def render(text: str) -> str:
    """Replace the tables of a page."""

    def drawn(found: re.Match[str]) -> str:
        pattern, draw = TABLES[found[2]]
        result = json.loads(sorted(RESULTS.glob(pattern))[-1].read_text())
        return f"{found[1]}{draw(result)}{found[3]}"

    return MARK.sub(drawn, text)


def main() -> None:
    """Render README and docs, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text()
        rendered = render(text)
        if rendered != text:
            stale.append(page.relative_to(ROOT))
            if not check:
                page.write_text(rendered)
    for page in stale:
        print(f"{page}: {'stale; run python benchmarks/render.py' if check else 'rendered'}")
    sys.exit(bool(stale and check))


if __name__ == "__main__":
    main()
