"""`facekit export`: the networks as files for ONNX Runtime or PyTorch alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facekit_cli import console
from facekit_cli.options import WeightsName


def export(
    out: Annotated[str, typer.Option(metavar="DIR", help="The folder to write.")],
    file_format: Annotated[
        str, typer.Option("--format", metavar="F", help="onnx, torchscript or torch.export.")
    ] = "onnx",
    precision: Annotated[str, typer.Option(metavar="P", help="fp32, fp16 or int8.")] = "fp32",
    weights: WeightsName = "default",
    calibrate: Annotated[
        str | None, typer.Option(metavar="DATASET", help="Faces that set the ranges of int8.")
    ] = None,
    detector_model: Annotated[
        str | None, typer.Option(metavar="F", help="A detector's weights, to be exported as well.")
    ] = None,
) -> None:
    """Write the networks for use without facekit, with a card that says how."""
    from facekit.export import export_networks

    card = export_networks(
        out,
        weights,
        format=file_format,
        precision=precision,
        calibrate=calibrate,
        detector=detector_model,
    )
    for task, entry in card["files"].items():
        path = Path(out, entry["file"])
        console.say(f"{path}: {task}, {path.stat().st_size / 1e6:.1f} MB")
