from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A shared machine is no place for time limits on single examples.
settings.register_profile("facekit", deadline=None)
settings.load_profile("facekit")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The labelled data, where FACEKIT_DATA names them; else the test is skipped with the reason."""
    named = os.environ.get("FACEKIT_DATA")
    if not named:
        pytest.skip("FACEKIT_DATA does not name the folder with the labelled data")
    folder = Path(named)
    if not folder.is_dir():
        pytest.skip(f"FACEKIT_DATA names {folder}, which is no folder")
    return folder


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache folder of these tests, so that they neither see nor fill the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACEKIT_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def fer2013_csv(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FER2013's CSV file, as Kaggle hands it out, without the PrivateTest rows."""
    target = tmp_path_factory.mktemp("fer2013") / "fer2013.csv"
    script = data_folder / "fer2013" / "make_csv.py"
    subprocess.run([sys.executable, str(script), str(target)], check=True, stdout=subprocess.PIPE)
    return target
