"""What is written past Python is not seen, and what Python writes is."""

import subprocess
import sys

PROGRAM = """
import ctypes, os, sys
from qprune.budget.quiet import quiet
print("first")
{before}
with quiet():
    ctypes.CDLL(None).puts(b"by C")
    os.write(1, b"by the system\\n")
print("last")
"""


def told(before: str = "") -> tuple[str, int]:
    run = subprocess.run([sys.executable, "-c", PROGRAM.format(before=before)], capture_output=True, text=True)
    return run.stdout, run.returncode


def test_what_a_library_writes_past_python_is_not_seen() -> None:
    assert told() == ("first\nlast\n", 0)


def test_what_c_had_written_before_is_seen() -> None:
    assert told('sys.stdout.flush(); ctypes.CDLL(None).puts(b"by C, before")') == ("first\nby C, before\nlast\n", 0)


def test_without_a_standard_output_nothing_happens() -> None:
    program = "import os; os.close(1); from qprune.budget.quiet import quiet\nwith quiet(): pass\nos.write(2, b'done')"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stderr.startswith("done")
