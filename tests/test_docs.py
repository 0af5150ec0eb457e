"""Every block of code in README and docs runs, in a folder that holds small files of the names they use.

A fence names its language. ``text`` is anything that is no code. ``python`` and ``sh`` run, each block alone;
of ``sh`` only `facekit` commands. Comments right above a fence say what stands against it:

    <!-- needs: slow -->            a marker of the tests
    <!-- not run: WHY -->           the whole block
    <!-- not run: `START` WHY -->   the lines that start so
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from clips import portrait_at, write_clip
from data.small_sets import fer2013_rows, write_fer2013, write_ferplus
from made import class_folders
from typer.testing import CliRunner

from facekit.schema import EXPRESSIONS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"(?P<notes>(?:^ *<!-- (?:needs|not run): .*-->\n)*)"
    r"^(?P<indent> *)```(?P<language>\w*).*\n(?P<code>(?:.*\n)*?)^(?P=indent)```$",
    re.MULTILINE,
)
NOTE = re.compile(r"<!-- (needs|not run): (?:`(.+?)` )?(.*) -->")


@dataclass(frozen=True)
class Block:
    """A fence of a page."""

    page: Path
    line: int
    language: str
    code: str
    notes: tuple[tuple[str, str, str], ...]

    @property
    def why_not(self) -> str:
        return "".join(text for kind, start, text in self.notes if kind == "not run" and not start)

    def parameter(self) -> object:
        marks = [getattr(pytest.mark, text) for kind, _, text in self.notes if kind == "needs"]
        if self.why_not:
            marks.append(pytest.mark.skip(reason=self.why_not))
        return pytest.param(self, id=f"{self.page.name}:{self.line}", marks=marks)

    def commands(self) -> Iterator[list[str]]:
        """Give the words of each command that is to run."""
        left_out = tuple(start for kind, start, _ in self.notes if kind == "not run")
        for line in self.code.replace("\\\n", " ").splitlines():
            if not left_out or not line.strip().startswith(left_out):
                yield shlex.split(line, comments=True)


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for fence in FENCE.finditer(text):
            line = text.count("\n", 0, fence.start("code")) + 1
            notes = tuple(NOTE.findall(fence["notes"]))
            code = re.sub(f"^{fence['indent']}", "", fence["code"], flags=re.MULTILINE)
            found.append(Block(page, line, fence["language"], code, notes))
    return found


BLOCKS = blocks()


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Path:
    """Small files of the names that the pages use."""
    folder = tmp_path_factory.mktemp("files")
    portrait = ROOT / "docs" / "images" / "astronaut.jpg"
    (folder / "docs").symlink_to(ROOT / "docs")
    (folder / "configs").symlink_to(ROOT / "configs")
    (folder / "PHOTOS").mkdir()
    for name in ("portrait.jpg", "PHOTOS/one.jpg", "PHOTOS/two.jpg"):
        shutil.copy(portrait, folder / name)
    write_clip(folder / "clip.mp4", (portrait_at(110 + 2 * step, 90) for step in range(12)))
    write_fer2013(folder / "fer2013.csv", fer2013_rows(["Training"] * 56 + ["PublicTest"] * 28))
    write_ferplus(folder / "fer2013new.csv", [("Training", row % 7) for row in range(56)])
    class_folders(folder / "DATASET", dict.fromkeys(EXPRESSIONS, 3))
    return folder


@pytest.fixture
def workplace(files, tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "workplace"
    shutil.copytree(files, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


def test_every_fence_says_what_it_is_and_every_exception_why():
    assert len(BLOCKS) > 40
    for block in BLOCKS:
        place = f"{block.page.name}:{block.line}"
        assert block.language in ("python", "sh", "text", "toml", "json"), place
        assert all(text for _, _, text in block.notes), f"{place} does not say why"
        for kind, start, _ in block.notes:
            assert kind == "not run" or not start
            assert not start or any(line.startswith(start) for line in block.code.splitlines()), place
    fences = sum(len(re.findall(r"^ *```", page.read_text(), re.MULTILINE)) for page in PAGES)
    assert fences == 2 * len(BLOCKS)


@pytest.mark.parametrize("block", [block.parameter() for block in BLOCKS if block.language == "python"])
def test_python_runs(block, workplace):
    code = "\n" * (block.line - 1) + block.code  # so that an error names the page's line
    exec(compile(code, str(block.page), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("block", [block.parameter() for block in BLOCKS if block.language == "sh"])
def test_commands_run(block, workplace):
    from facekit_cli.main import app

    for program, *arguments in filter(None, block.commands()):
        assert program == "facekit", f"{program}: say above the block why it is not run"
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, f"facekit {shlex.join(arguments)}: {done.output}"
