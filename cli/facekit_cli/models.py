"""`facekit models`: the weights that come with facekit."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from facekit_cli import console
from facekit_cli.outputs import written


def models(
    json_out: Annotated[
        str | None, typer.Option("--json", metavar="-|F", help="Write JSON to stdout or a file.")
    ] = None,
) -> None:
    """Show the shipped weights: tasks, parameters, class sets and file."""
    from facekit.weights import describe_shipped

    entries = describe_shipped()
    if json_out is not None:
        with written(json_out) as stream:
            json.dump(entries, stream, indent=1)
            stream.write("\n")
        return
    for entry in entries:
        console.say(
            f"{entry['name']}: {entry['version']}, {entry['parameters']:,} parameters, {entry['file']}"
        )
        console.say(f"    tasks: {', '.join(entry['tasks'])}")
        for head, classes in entry["heads"].items():
            console.say(f"    {head}: {', '.join(classes)}")
