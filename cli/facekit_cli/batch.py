"""`facekit batch`: analyse very many pictures, in parallel and to shards; a stopped run goes on."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from facekit_cli import console
from facekit_cli.options import (
    AllowPrivate,
    BackendName,
    BatchSize,
    DetectorModel,
    DetectorName,
    Device,
    MaxFaces,
    MaxPixels,
    MinFace,
    MinScore,
    WeightsName,
)


class EngineName(StrEnum):
    """What runs the workers."""

    local = "local"
    ray = "ray"


class ShardFormat(StrEnum):
    """How shards are written."""

    jsonl = "jsonl"
    parquet = "parquet"


def batch(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC",
            help="Folder, glob, list (.txt, .lst), table (.csv, .tsv, .parquet), archive (.tar, .zip).",
        ),
    ],
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder of the shards; a run there goes on.")],
    engine: Annotated[
        EngineName, typer.Option(help="local: processes of this machine; ray: Ray Data.")
    ] = EngineName.local,
    format: Annotated[ShardFormat, typer.Option(help="Of the shards.")] = ShardFormat.jsonl,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes or actors.", show_default="one a core, or as fit")
    ] = None,
    shard_size: Annotated[int, typer.Option(min=1, help="Least pictures of a shard.")] = 1000,
    column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of tables: the column of paths or pictures.")
    ] = None,
    root: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Where relative paths in lists and tables begin.", show_default="beside"
        ),
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="A", help="Of a Ray cluster; without it Ray is started here.")
    ] = None,
    cpus_per_worker: Annotated[
        float | None,
        typer.Option(min=0.01, help="Processor cores of a Ray actor.", show_default="1, or as fit"),
    ] = None,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(min=0, help="Accelerators of a Ray actor.", show_default="0.25 where there are some"),
    ] = None,
    detector: DetectorName = "auto",
    detector_model: DetectorModel = None,
    device: Device = "auto",
    backend: BackendName = "auto",
    weights: WeightsName = "default",
    batch_size: BatchSize = 32,
    min_score: MinScore = None,
    min_face: MinFace = None,
    max_faces: MaxFaces = None,
    max_pixels: MaxPixels = None,
    allow_private: AllowPrivate = False,
) -> None:
    """Analyse very many pictures and write shards of JSON lines or Parquet; begin again to go on."""
    from facekit.batch.running import BatchConfig, run_batch
    from facekit.batch.work import Analysis
    from facekit.images import MAX_PIXELS

    analysis = Analysis(
        device=device,
        detector=detector,
        weights=weights,
        detector_model=detector_model,
        min_score=min_score,
        min_face=min_face,
        max_faces=max_faces,
        max_pixels=max_pixels or MAX_PIXELS,
        allow_private=allow_private,
        batch_size=batch_size,
        backend=backend,
    )
    config = BatchConfig(
        analysis=analysis,
        engine=engine.value,
        format=format.value,
        shard_size=shard_size,
        workers=workers,
        column=column,
        root=root,
        address=address,
        cpus_per_worker=cpus_per_worker,
        gpus_per_worker=gpus_per_worker,
    )
    with console.progress("pictures", "pictures/s") as tick:
        for far in run_batch(sources, out, config):
            tick(far.pictures, far.planned)
    console.say(f"{out}: {far.pictures:,} pictures, {far.faces:,} faces, {far.failed:,} pictures failed")
    if far.failed:
        console.complain(f"{out}: {far.failed:,} of {far.planned:,} pictures failed; the shards say why")
    raise typer.Exit(0 if not far.failed else 2 if far.failed == far.planned else 1)
