"""What a run says while it works: one short line a step with its seconds for people, or one JSON event a step."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, TextIO


class Progress:
    """Thread-safe. Lines for people go to stderr; with ``as_json`` events go to stdout, one JSON object a line.

    An event has ``event`` (``step``, ``outcome``, ``note``, ``problem``), ``pair``, and of ``step``, ``seconds``,
    ``bytes``, ``outcome``, ``text`` those that it has something to say about.
    """

    def __init__(self, *, as_json: bool = False, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.as_json = as_json
        self._out, self._err = out or sys.stdout, err or sys.stderr
        self._lock = threading.Lock()
        self._begun = time.monotonic()
        self.problems: list[str] = []

    def event(self, event: str, pair: str, text: str, **values: Any) -> None:
        """Say one thing."""
        with self._lock:
            if self.as_json:
                row = {"event": event, "pair": pair, "text": text, **values}
                print(json.dumps({k: v for k, v in row.items() if v not in ("", None)}), file=self._out, flush=True)
            else:
                subject = f"{pair}: " if pair else ""
                print(f"[{time.monotonic() - self._begun:6.1f} s] {subject}{text}", file=self._err, flush=True)

    def note(self, pair: str, text: str) -> None:
        """Something worth knowing, no step."""
        self.event("note", pair, text)

    def problem(self, text: str) -> None:
        """A line about something the system could not do; each distinct one is said once, on stderr."""
        with self._lock:
            new = text not in self.problems
            if new:
                self.problems.append(text)
                print(f"doit: {text}", file=self._err, flush=True)

    @contextlib.contextmanager
    def step(self, pair: str, step: str, text: str) -> Iterator[dict[str, Any]]:
        """Time one step; what the body puts into the given dict goes into the event."""
        values: dict[str, Any] = {}
        start = time.monotonic()
        yield values
        seconds = round(time.monotonic() - start, 2)
        self.event("step", pair, f"{text} in {seconds:.1f} s", step=step, seconds=seconds, **values)
