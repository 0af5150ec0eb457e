"""What the terminal sees beside results: errors in one line, and progress."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from facekit.errors import FacekitError

UsageError: type[Any] = typer.BadParameter.__mro__[1]
"""Of the click that typer brings with it, or of the one beside it."""


class Commands(TyperGroup):
    """Commands whose foreseen errors become one line on stderr and exit code 2."""

    def make_context(self, info_name: str | None, args: list[str], *others: Any, **extra: Any) -> Any:
        """Read the options before the command."""
        if not args:  # shows the help
            return super().make_context(info_name, args, *others, **extra)
        try:
            return super().make_context(info_name, args, *others, **extra)
        except UsageError as error:
            _fail_usage(error)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except UsageError as error:
            _fail_usage(error)
        except FacekitError as error:
            _fail(str(error))
        except BrokenPipeError:
            raise  # the reader of a pipe has seen enough
        except OSError as error:
            _fail(str(error))
        except ImportError as error:
            if ".so" not in str(error):
                raise
            _fail(missing_library(error))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def missing_library(error: ImportError) -> str:
    """Say which system library an import misses, and how to get those that OpenCV needs."""
    return f"a system library is missing: {error}; on Debian and Ubuntu: apt-get install libgl1 libglib2.0-0"


def say(text: str, *, error: bool = False) -> None:
    """Write a line to stdout, or to stderr; names that are not text are shown with escapes."""
    typer.echo(text.encode(errors="backslashreplace").decode(), err=error)


def complain(text: str) -> None:
    """Write one line to stderr."""
    say(f"facekit: {' '.join(text.split())}", error=True)


def _fail_usage(error: Any) -> NoReturn:
    _fail(f"{error.format_message().rstrip('.')}; see `{error.ctx.command_path} --help`")


def _fail(text: str) -> NoReturn:
    complain(text)
    raise typer.Exit(2)


@contextmanager
def progress(label: str, rate: str | None = None) -> Iterator[Callable[[int, int | None], None]]:
    """Give a function to call with what is done and what there is to do; a bar shows it on a terminal.

    The bar also shows the speed where its unit is given, such as "frames/s".
    """
    # Of a training's processes, which torchrun numbers, the first one shows the bar.
    if not sys.stderr.isatty() or os.environ.get("RANK", "0") != "0":
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    speed = [TextColumn(f"{{task.fields[speed]}} {rate}")] if rate else []
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        *speed,
        TimeRemainingColumn(),
    )
    with Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # else results meant for a file would land on the terminal
    ) as bar:
        task = bar.add_task(label, total=None, speed="-")

        def tick(done: int, total: int | None) -> None:
            speed = bar.tasks[0].finished_speed or bar.tasks[0].speed
            bar.update(task, completed=done, total=total, speed="-" if speed is None else f"{speed:.1f}")

        yield tick
