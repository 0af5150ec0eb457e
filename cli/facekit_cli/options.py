"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Boxes(StrEnum):
    """Where a face's box comes from."""

    labels = "labels"
    detector = "detector"


DatasetPath = Annotated[str, typer.Argument(metavar="DATASET", help="A labelled folder or its main file.")]
Format = Annotated[str, typer.Option("--format", metavar="F", help="The dataset's format; auto finds it.")]
Split = Annotated[str | None, typer.Option(metavar="S", help="train, validation, test or a native name.")]
BoxSource = Annotated[Boxes | None, typer.Option(help="Where a face's box comes from.")]
Tta = Annotated[bool, typer.Option("--tta", help="Mean over the picture and its mirror.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only this many rows, chosen by the seed.")]
WeightsName = Annotated[str, typer.Option(metavar="W", help="A shipped name or a file.")]
Head = Annotated[str | None, typer.Option(metavar="H", help="The expression head.")]
BackendName = Annotated[str, typer.Option(help="auto, torch, or onnx: on the CPU, ready sooner.")]
DetectorName = Annotated[str, typer.Option(help="auto, haar, yunet, none, ...")]
DetectorModel = Annotated[
    str | None, typer.Option(metavar="F", help="The detector's model file, where it needs one.")
]
MinScore = Annotated[float | None, typer.Option(min=0, max=1, help="Leave out detections below this score.")]
MinFace = Annotated[
    float | None, typer.Option(min=0, metavar="PX", help="Leave out faces smaller than this.")
]
MaxFaces = Annotated[int | None, typer.Option(min=1, help="Keep only the largest faces.")]
MaxPixels = Annotated[
    int | None, typer.Option(min=1, help="Refuse larger pictures.", show_default="50 million")
]
AllowPrivate = Annotated[
    bool, typer.Option("--allow-private", help="Let URLs reach addresses that are not public.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Pictures analysed together.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Seed = Annotated[int, typer.Option(help="Of intervals and of the choice of rows.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first row that is faulty.")]
JsonFile = Annotated[str | None, typer.Option("--json", metavar="-|F", help="Write everything as JSON.")]
