from __future__ import annotations

import os
from pathlib import Path

import pytest


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
