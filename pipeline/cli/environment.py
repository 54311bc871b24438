"""What is said of the Python environment and of words before anything else of this project is loaded."""

from __future__ import annotations

import sys

_DAMAGED = 2
_WRONG_USE = 3


def damaged(error: ImportError) -> int:
    """Say that a package of the environment is gone; the exit status. Raises ``error`` where it is of this project's own code."""
    if (error.name or "pipeline").partition(".")[0] in ("pipeline", "dodo"):
        raise error
    what = f"the Python environment {sys.prefix} is damaged ({error})"
    return complain(f"{what}: delete it and run ./doit.sh, which makes it anew", _DAMAGED)


def complain(text: str, status: int = _WRONG_USE) -> int:
    """Print ``text`` as one line on stderr; return ``status``."""
    print(f"doit: {''.join(c if c.isprintable() else '?' for c in text)}", file=sys.stderr)
    return status
