from __future__ import annotations

import os
import pty
import subprocess
import sys

PROGRAM = """
from facekit_cli import console

with console.progress("pictures") as tick:
    for count in range(5):
        console.say(f"result {count}")
        tick(count + 1, 5)
console.complain("two\\nlines")
"""


def run(*, terminal_stdout: bool) -> tuple[str, str]:
    """Run the program with a terminal on stderr, and give what stdout and the terminal got."""
    terminal, stderr = pty.openpty()
    stdout = stderr if terminal_stdout else subprocess.PIPE
    program = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=stdout, stderr=stderr, text=True)
    os.close(stderr)
    shown = b""
    try:
        while part := os.read(terminal, 65536):
            shown += part
    except OSError:  # how Linux reports that the other end is closed
        pass
    os.close(terminal)
    written, _ = program.communicate()
    assert program.returncode == 0
    return written or "", shown.decode()


def test_results_for_a_file_stay_clean_of_the_bar():
    written, shown = run(terminal_stdout=False)
    assert written == "".join(f"result {count}\n" for count in range(5))
    assert "pictures" in shown
    assert "5/5" in shown
    assert "result" not in shown
    assert "facekit: two lines" in shown


def test_results_on_a_terminal_stand_beside_the_bar():
    _, shown = run(terminal_stdout=True)
    assert "5/5" in shown
    for count in range(5):
        assert f"result {count}" in shown


def test_no_terminal_no_bar():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == "".join(f"result {count}\n" for count in range(5))
    assert done.stderr == "facekit: two lines\n"
