"""Charts for the page: figures as inline SVG that takes its colours and type from the page's style."""

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING

from facekit import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_VARIABLES = {
    plots.INK: "var(--ink)",
    plots.MUTED: "var(--muted)",
    plots.GRID: "var(--line)",
    plots.PREDICTED: "var(--predicted)",
    plots.LABELLED: "var(--labelled)",
}


def chart(figure: Figure, name: str, alt: str, caption: str = "") -> str:
    """Give a figure as HTML.

    Parameters
    ----------
    figure : Figure
    name : str
        Differs from other charts' on the page: the ids inside begin with it.
    alt : str
        What the chart shows, in words.
    caption : str
        HTML below it.
    """
    import matplotlib as mpl

    stream = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    described = f'<svg role="img" aria-label="{escape(alt)}"'
    note = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f'<figure class="chart">{svg.replace("<svg", described, 1).strip()}{note}</figure>'
