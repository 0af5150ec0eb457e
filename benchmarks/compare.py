"""Hold two results files of one suite and machine against each other, median by median.

    python benchmarks/compare.py FIRST.json SECOND.json

Medians agree where they differ by at most 10%, or where each lies within the other's quartiles; the exit
status is 1 if fewer than nine in ten do.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

TOLERANCE = 0.1
ENOUGH = 0.9

Figure = dict[str, Any]


def medians(path: Path) -> dict[str, Figure]:
    """Give the timed figures of a results file by name and setting."""
    figures = json.loads(path.read_text())["figures"]
    return {
        f"{figure['name']} {json.dumps(figure['setting'], sort_keys=True)}": figure
        for figure in figures
        if "median" in figure
    }


def agree(first: Figure, second: Figure) -> bool:
    """Tell whether two medians are the same within the stated spread."""
    ratio = second["median"] / first["median"]
    inside = [
        one["quartiles"][0] <= other["median"] <= one["quartiles"][1]
        for one, other in ((first, second), (second, first))
    ]
    return abs(ratio - 1) <= TOLERANCE or all(inside)


def main() -> None:
    """Print every ratio, and how many agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    paths = parser.parse_args()
    first, second = medians(paths.first), medians(paths.second)
    shared = [name for name in first if name in second]
    if not shared:
        sys.exit("the files share no timed figure")
    for name in shared:
        mark = "" if agree(first[name], second[name]) else "  <- differs"
        print(f"{second[name]['median'] / first[name]['median']:6.3f}  {name}{mark}")
    same = sum(agree(first[name], second[name]) for name in shared)
    print(f"{same} of {len(shared)} medians agree")
    sys.exit(same < ENOUGH * len(shared))


if __name__ == "__main__":
    main()
