from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "cv2", "pandas", "skimage", "matplotlib", "scipy")


def loaded_after(statement: str, watched: tuple[str, ...]) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*(set({watched!r}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "statement",
    [
        "import facekit",
        "import facekit_cli.main",
        "from typer.testing import CliRunner; from facekit_cli.main import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "assert CliRunner().invoke(app, ['predict', '--help']).exit_code == 0",
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(statement):
    assert loaded_after(statement, (*HEAVY, "numpy", "rich", "PIL")) == set()


@pytest.mark.parametrize(
    "module",
    [
        "images",
        "geometry",
        "mirror",
        "results",
        "analyzer",
        "keypoints",
        "alignment",
        "expression",
        "weights",
        "backends.onnx",
    ],
)
def test_modules_on_the_way_of_a_picture_load_neither_torch_nor_pandas(module):
    assert loaded_after(f"import facekit.{module}", ("torch", "pandas")) == set()
