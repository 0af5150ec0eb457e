"""`facekit`: the commands, one module each."""

from __future__ import annotations

from typing import Annotated

import typer

from facekit import __version__
from facekit_cli import (
    batch,
    bench,
    console,
    crosscheck,
    doctor,
    evaluate,
    export,
    formats,
    models,
    predict,
    serve,
    train,
    video,
    webcam,
)

app = typer.Typer(
    cls=console.Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.say(f"facekit {__version__}")
        raise typer.Exit


@app.callback()
def facekit(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Find faces, keypoints and expressions in pictures, and check them against labelled data."""


app.command()(predict.predict)
app.command()(evaluate.evaluate)
app.command()(crosscheck.crosscheck)
app.command()(train.train)
app.command()(formats.formats)
app.command()(video.video)
app.command()(webcam.webcam)
app.command()(batch.batch)
app.command()(export.export)
app.command()(models.models)
app.command()(serve.serve)
app.command()(bench.bench)
app.command()(doctor.doctor)

if __name__ == "__main__":
    app()
