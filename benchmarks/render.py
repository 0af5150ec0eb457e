"""Write the tables and plots of README and docs from the results files.

    python benchmarks/render.py [--check]

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``, a plot between ``<!-- plot: NAME -->``
and that; what is between them is replaced. Plots lie in ``docs/images/``. Of several results the newest full
one counts; what has none is "not yet measured". With --check nothing is written, and the exit status says
whether a page or a plot is stale.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path

from cells import Result, caption
from plots import PLOTS
from tables import TABLES

import facekit

ROOT = Path(__file__).parents[1]
MARK = re.compile(r"(<!-- (table|plot): (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
NOT_YET = "Not yet measured.\n"


def newest(results: Path, suite: str, device: str) -> Result | None:
    """Give the newest full result of a suite on "cpu" or an "accelerator"; None where there is none."""
    found = []
    for path in results.glob(f"{suite}--*.json"):
        _, _, on, *quick = path.stem.split("--")
        if not quick and (on == "cpu") == (device == "cpu"):
            result: Result = {**json.loads(path.read_text()), "device": device}
            found.append((result["date"], path.name, result))
    return max(found)[-1] if found else None


def render(text: str, page: Path, results: Path) -> str:
    """Replace the tables and plots of a page.

    Parameters
    ----------
    text : str
        What the page says now.
    page : Path
        Below the root of the repository.
    results : Path
        Folder of this version's results.
    """

    def drawn(found: re.Match[str]) -> str:
        start, kind, name, end = found.groups()
        known = TABLES if kind == "table" else PLOTS
        if name not in known:
            sys.exit(f"{page}: no {kind} {name!r}; expected one of {', '.join(known)}")
        return f"{start}{_table(name, results) if kind == 'table' else _plot(name, page, results)}{end}"

    return MARK.sub(drawn, text)


def _table(name: str, results: Path) -> str:
    table = TABLES[name]
    result = newest(results, table.suite, table.device)
    return NOT_YET if result is None else table.draw(result) + caption(result)


def _plot(name: str, page: Path, results: Path) -> str:
    alternative, draw = PLOTS[name]
    if draw(lambda suite, device: newest(results, suite, device)) is None:
        return NOT_YET
    return f"![{alternative}]({os.path.relpath(plot_path(name), page.parent)})\n"


def plot_path(name: str) -> Path:
    """Give the place of a plot below the root."""
    return Path("docs") / "images" / f"bench-{name}.svg"


def pages(root: Path, results: Path) -> dict[Path, str | None]:
    """Give every page and plot as it ought to be; None for a plot without results."""
    written: dict[Path, str | None] = {}
    for page in (root / "README.md", *sorted((root / "docs").glob("**/*.md"))):
        place = page.relative_to(root)
        written[place] = render(page.read_text(), place, results)
    for name, (_, draw) in PLOTS.items():
        written[plot_path(name)] = draw(lambda suite, device: newest(results, suite, device))
    return written


def stale(root: Path, results: Path) -> dict[Path, str | None]:
    """Give the pages and plots that are not as they ought to be."""
    wanted = pages(root, results)
    return {place: text for place, text in wanted.items() if _read(root / place) != text}


def _read(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None


def main() -> None:
    """Render README and docs, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    wrong = stale(ROOT, ROOT / "benchmarks" / "results" / facekit.__version__)
    for place, text in wrong.items():
        print(f"{place}: {'stale; run python benchmarks/render.py' if check else 'rendered'}")
        if check:
            continue
        if text is None:
            (ROOT / place).unlink()
        else:
            (ROOT / place).write_text(text)
    sys.exit(bool(wrong and check))


if __name__ == "__main__":
    main()
