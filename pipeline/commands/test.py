"""``doit test``: every test of the project."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .plain import Plain


class Test(Plain):
    """``doit test [WORD …]``: every test; further words go to pytest."""

    name = "test"
    doc_purpose = "run the tests; further words go to pytest"
    doc_usage = "[PYTEST WORDS...]"
    doc_description = None
    cmd_options = ()

    def parse_execute(self, in_args: Sequence[str]) -> int:
        """Hand every word on untouched: they are pytest's."""
        program = [sys.executable, "-m", "pytest", *in_args]
        return subprocess.run(program, check=False, cwd=Path.cwd(), env={**os.environ}).returncode
