from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from facekit_cli.main import app

SavePicture = Callable[..., Path]


class Command:
    """Runs facekit within this process."""

    def __call__(self, *arguments: object, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


@pytest.fixture(scope="session")
def facekit() -> Command:
    return Command()


@pytest.fixture(scope="session")
def untrained(tmp_path_factory) -> Path:
    """Weights of a small network that never learnt, where only the flow of data is tested."""
    from made import weights

    return Path(weights(tmp_path_factory.mktemp("weights")))


@pytest.fixture(scope="session")
def save_picture() -> SavePicture:
    """Give a function that writes a smooth coloured picture."""

    def save(path: Path, seed: int = 0, size: tuple[int, int] = (60, 40)) -> Path:
        rng = np.random.default_rng(seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(path)
        return path

    return save


@pytest.fixture
def album(tmp_path, save_picture) -> Path:
    """A folder with five pictures, two of them of one name, and a file that is no picture."""
    folder = tmp_path / "album"
    for seed, name in enumerate(("b.jpg", "a.png", "sub/b.jpg", "sub/deep/c.webp", "z.jpeg")):
        save_picture(folder / name, seed)
    (folder / "notes.txt").write_text("no picture")
    return folder
