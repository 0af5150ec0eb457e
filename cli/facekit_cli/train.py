"""`facekit train`: fit a network to labelled data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facekit.errors import ConfigError
from facekit_cli import console

if TYPE_CHECKING:
    from facekit.fitting import EpochRecord


def train(
    data: Annotated[list[str], typer.Option(metavar="PATH...", help="Labelled folders or files.")],
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder of checkpoints, history and weights.")],
    more_data: Annotated[list[str] | None, typer.Argument(metavar="PATH", hidden=True)] = None,
    config: Annotated[
        str | None, typer.Option(metavar="F.toml", help="All settings; those left out keep their defaults.")
    ] = None,
    arch: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="shared, detector, or a classic model that `facekit models` names."
        ),
    ] = "shared",
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run stopped.")] = False,
    epochs: Annotated[int | None, typer.Option(min=1, help="In place of the configuration's.")] = None,
    folds: Annotated[int, typer.Option(min=0, help="Predict every row by a network that never saw it.")] = 0,
    seed: Annotated[int | None, typer.Option(help="In place of the configuration's.")] = None,
) -> None:
    """Fit a network to labelled data; an option --data takes any number of paths."""
    if arch not in ARCHITECTURES:
        from facekit.baselines import BASELINES

        if arch not in BASELINES:
            known = ", ".join([*ARCHITECTURES, *BASELINES])
            raise ConfigError(f"unknown architecture {arch!r}: expected {known}")
    start = ARCHITECTURES.get(arch, partial(_baseline, arch))
    changes = {name: value for name, value in (("epochs", epochs), ("seed", seed)) if value is not None}
    # A parser gives an option one value; what follows it before the next option comes as arguments.
    paths = [*data, *(more_data or ())]
    with console.progress("epochs") as tick:
        for record in start(config, changes, paths, out, resume, folds):
            console.say(describe(record))
            tick(record.epoch, record.epochs)


def describe(record: EpochRecord) -> str:
    """Tell an epoch's losses and figures in one line."""
    row = record.row()
    figures = [f"{name} {value:.4f}" for name, value in row.items() if name not in ("epoch", "seconds")]
    return f"epoch {record.epoch}/{record.epochs}  {record.seconds:.1f} s  {'  '.join(figures)}"


def _shared(
    config: str | None, changes: dict[str, Any], data: list[str], out: str, resume: bool, folds: int
) -> Iterator[EpochRecord]:
    from facekit.configuration import TrainConfig, read_config
    from facekit.training import train

    settings = read_config(config) if config else TrainConfig()
    settings = replace(settings, fit=replace(settings.fit, **changes))
    return train(settings, data, out, resume=resume, folds=folds)


def _detector(
    config: str | None, changes: dict[str, Any], data: list[str], out: str, resume: bool, folds: int
) -> Iterator[EpochRecord]:
    from facekit.configuration import read_settings
    from facekit.detector_training import DetectorTrainConfig, train_detector

    if folds:
        raise ConfigError("--folds is for expressions; leave it out with --arch detector")
    settings = DetectorTrainConfig()
    settings = read_settings(config, settings) if config else settings
    settings = replace(settings, fit=replace(settings.fit, **changes))
    return train_detector(settings, data, out, resume=resume)


def _baseline(
    arch: str,
    config: str | None,
    changes: dict[str, Any],
    data: list[str],
    out: str,
    resume: bool,
    folds: int,
) -> Iterator[EpochRecord]:
    from facekit.baseline_training import default_config, train_baseline
    from facekit.configuration import read_settings

    if folds:
        raise ConfigError(f"--folds is for the shared network; leave it out with --arch {arch}")
    settings = default_config(arch)
    settings = read_settings(config, settings) if config else settings
    if settings.model.arch != arch:
        raise ConfigError(f"{config}: is for {settings.model.arch}, but --arch is {arch}")
    settings = replace(settings, fit=replace(settings.fit, **changes))
    return train_baseline(settings, data, out, resume=resume)


ARCHITECTURES: dict[str, Callable[..., Iterator[EpochRecord]]] = {"shared": _shared, "detector": _detector}
"""What can be trained besides the classic models, by name."""
