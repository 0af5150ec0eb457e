"""torchvision's ImageNet weights, downloaded once into the cache folder and checked against their digest."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from hashlib import file_digest
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit
from urllib.request import urlopen

import torch
from torch import Tensor
from torchvision.models import get_weight

from facekit.data.cache import cache_folder
from facekit.errors import WeightsError

TIME_LIMIT = 30.0
"""Seconds that a server may be silent."""

_DIGEST_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.")


def imagenet_weights(name: str) -> Mapping[str, Tensor]:
    """Give the tensors of weights by torchvision's name for them, such as "VGG16_Weights.IMAGENET1K_V1".

    Raises
    ------
    WeightsError
        They cannot be downloaded, or are not what their name's digest says.
    """
    path = download(get_weight(name).url, cache_folder() / "imagenet")
    state: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def download(url: str, folder: Path) -> Path:
    """Give the file of a URL whose name holds the first digits of its sha256, from the folder if it is there.

    Raises
    ------
    WeightsError
        As `imagenet_weights`.
    """
    path = folder / PurePosixPath(urlsplit(url).path).name
    if not path.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=folder) as temporary:
                part = Path(temporary) / path.name
                with urlopen(url, timeout=TIME_LIMIT) as response, part.open("wb") as file:
                    shutil.copyfileobj(response, file)
                _check(part, "the download is not what it should be; try again")
                part.replace(path)
        except OSError as error:
            raise WeightsError(
                f"{url}: cannot be downloaded: {error}; put the file into {folder}, or leave pretrained out "
                "and train from random weights"
            ) from error
    _check(path, "delete the file to have it downloaded again")
    return path


def _check(path: Path, advice: str) -> None:
    """Hold a file's digest against the digits in its name."""
    found = _DIGEST_IN_NAME.search(path.name)
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    if found is None or not digest.startswith(found[1]):
        raise WeightsError(f"{path.name}: sha256 is {digest}, not as its name says; {advice}")
