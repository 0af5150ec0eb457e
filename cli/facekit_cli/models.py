"""`facekit models`: the weights that come with facekit, and the classic models that it trains."""

from __future__ import annotations

import json
from typing import Any

from facekit_cli import console
from facekit_cli.options import JsonFile
from facekit_cli.outputs import written


def models(json_file: JsonFile = None) -> None:
    """Show the shipped weights and the classic models: tasks, parameters, classes, references."""
    entries = list_models()
    if json_file is not None:
        with written(json_file) as stream:
            json.dump(entries, stream, indent=1)
            stream.write("\n")
        return
    console.say("weights that ship")
    for entry in entries:
        if entry["kind"] == "shipped":
            console.say(f"  {describe(entry)}  {entry['version']}, {entry['weights']}")
            for head, classes in entry["heads"].items():
                console.say(f"      {head}: {', '.join(classes)}")
    console.say("classic models: facekit train --arch NAME --data PATH... --out DIR")
    for entry in entries:
        if entry["kind"] == "baseline":
            console.say(f"  {describe(entry)}  {entry['reference']}: {entry['reference_figure']}")


def list_models() -> list[dict[str, Any]]:
    """Give what ships and what can be trained, all with the same first entries."""
    from facekit.baselines import describe_baselines
    from facekit.weights import describe_shipped

    shipped = [
        {
            "kind": "shipped",
            **entry,
            "class_set": "fer2013" if "expression" in entry["tasks"] else None,
            "reference": None,
            "reference_figure": None,
            "weights": entry["file"],
        }
        for entry in describe_shipped()
    ]
    return [*shipped, *({"kind": "baseline", **entry} for entry in describe_baselines())]


def describe(entry: dict[str, Any]) -> str:
    """Tell a model's name, tasks, parameters and classes in columns."""
    tasks = " + ".join(entry["tasks"])
    return f"{entry['name']:<18}{tasks:<24}{entry['parameters']:>11,}  {entry['class_set'] or '-':<8}"
