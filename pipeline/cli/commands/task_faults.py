"""What a task fails of that no code foresaw: one line on stderr, and all of it in a file to send us."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from doit.exceptions import BaseFail
from doit.reporter import ZeroReporter

KEPT: Final = Path("build/log/internal-error.log")


class Faults(ZeroReporter):  # type: ignore[misc]
    """doit's quiet reporter, which would swallow such an exception: a task's own problems never come here."""

    def add_failure(self, task: Any, fail: BaseFail) -> None:
        """Say what failed, and where the traceback is."""
        text = fail.get_msg().rstrip()
        last = text.rpartition("\n")[2]
        try:
            KEPT.parent.mkdir(parents=True, exist_ok=True)
            with KEPT.open("a") as file:
                file.write(f"{task.name}\n{text}\n")
            where = f"please report it with {KEPT}"
        except OSError as error:
            where = f"please report it ({KEPT} could not be written: {error.strerror})"
        print(f"doit: {task.name}: internal error: {last}: {where}", file=sys.stderr)
