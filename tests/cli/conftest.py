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
    import torch

    from facekit.model import ModelConfig, SharedNetwork
    from facekit.schema import ALIGNED_POINTS, DEFAULT_HEAD, EXPRESSIONS, MEAN_FACE
    from facekit.weights import model_record, save_weights

    torch.manual_seed(0)
    config = ModelConfig(width=8, blocks=(1, 1, 1, 1), heads={DEFAULT_HEAD: EXPRESSIONS})
    frame = np.array(MEAN_FACE)[list(ALIGNED_POINTS)] * 32 + 24
    header = {
        "name": "untrained-v0",
        "model": model_record(config),
        "mean": 0.5,
        "std": 0.25,
        "crop_factor": 1.6,
        "frame": frame.tolist(),
        "temperature": {DEFAULT_HEAD: 1.0},
        "sigma_factor": 1.0,
    }
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    save_weights(path, SharedNetwork(config), "shared", header)
    return path


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
