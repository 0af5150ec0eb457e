from __future__ import annotations

import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import facekit as package
from facekit_cli.main import app

COMMANDS = [info.name or info.callback.__name__ for info in app.registered_commands]


def test_the_version(facekit):
    done = facekit("--version")
    assert (done.exit_code, done.stdout) == (0, f"facekit {package.__version__}\n")


def test_help_names_every_command(facekit):
    done = facekit("--help")
    assert done.exit_code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(facekit, name):
    done = facekit(name, "--help")
    assert done.exit_code == 0
    assert done.stdout.startswith(f"Usage: {Path(sys.argv[0]).name}") or f" {name} " in done.stdout


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["predict"]])
def test_wrong_usage_is_one_line_and_exit_2(facekit, arguments):
    done = facekit(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("facekit: ")
    assert done.stderr.count("\n") == 1


def test_no_command_shows_the_help(facekit):
    done = facekit()
    assert "Usage: " in done.output
    assert "\n  predict " in done.output


def test_the_script_and_the_module_are_the_app():
    project = Path(package.__file__).parents[1] / "pyproject.toml"
    if project.is_file():
        scripts = tomllib.loads(project.read_text())["project"]["scripts"]
        assert scripts == {"facekit": "facekit_cli.main:app"}
    command = [sys.executable, "-m", "facekit_cli.main", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"facekit {package.__version__}\n"


def test_help_answers_at_once():
    """Within the 0.3 s that are promised, in processor time: other programs may run beside the tests."""

    def seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    command, before = [sys.executable, "-m", "facekit_cli.main", "--help"], seconds()
    for _ in range(3):
        subprocess.run(command, capture_output=True, check=True)
    assert (seconds() - before) / 3 < 0.3


def test_a_bug_is_not_dressed_up_as_a_users_error(facekit, monkeypatch):
    def broken(_given):
        raise RuntimeError("a bug")

    monkeypatch.setattr("facekit_cli.predict.expand", broken)
    assert isinstance(facekit("predict", "a.jpg").exception, RuntimeError)
