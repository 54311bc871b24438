"""What a run says while it works: one short line a step with its seconds for people, or one JSON event a step.

The events and their names are documented in docs/logs.md; programs read them, so a name that is there stays.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Final, Literal, TextIO, get_args

from .errors import PipelineError

Outcome = Literal["built", "failed", "excluded", "pending"]
"""What became of a pair."""
Step = Literal["fetch", "build", "assemble", "proof", "push"]
Event = Literal["step", "outcome", "note", "problem", "end"]
STEPS: Final[tuple[str, ...]] = get_args(Step)
EVENTS: Final[tuple[str, ...]] = get_args(Event)


class Progress:
    """Thread-safe. Lines for people go to stderr; with ``as_json`` events go to stdout, one JSON object a line.

    An event has ``event``, ``time`` (UTC, RFC 3339), ``text``, and of ``pair``, ``step``, ``seconds``, ``bytes``,
    ``outcome``, ``totals`` and ``serial`` those that it has something to say about.
    """

    def __init__(self, *, as_json: bool = False, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.as_json = as_json
        self._out, self._err = out or sys.stdout, err or sys.stderr
        self._lock = threading.Lock()
        self._begun = time.monotonic()
        self.problems: dict[str, int] = {}
        """Each line that ``problem`` said, and the exit status it stands for."""
        self.outcomes: dict[str, Outcome] = {}
        """What pairs came to while this run worked on them."""

    def event(self, event: Event, pair: str, text: str, **values: Any) -> None:
        """Say one thing. ``pair`` is its id, or the name of a shared part (``toolchain:…``, ``driver:…``, ``base:…``)."""
        with self._lock:
            if event == "outcome":
                self.outcomes[pair] = values["outcome"]
            if self.as_json:
                self._row(event, pair, text, values)
            else:
                subject = f"{pair}: " if pair else ""
                print(f"[{time.monotonic() - self._begun:6.1f} s] {subject}{text}", file=self._err, flush=True)

    def note(self, pair: str, text: str) -> None:
        """Something worth knowing, no step."""
        self.event("note", pair, text)

    def problem(self, error: PipelineError) -> None:
        """Something that a task could not do; each distinct line is said once, on stderr."""
        text = str(error)
        with self._lock:
            if text in self.problems:
                return
            self.problems[text] = error.exit_status
            print(f"doit: {text}", file=self._err, flush=True)
            if self.as_json:
                self._row("problem", "", text, {})

    @contextlib.contextmanager
    def step(self, pair: str, step: Step, text: str) -> Iterator[dict[str, Any]]:
        """Time one step; what the body puts into the given dict goes into the event.

        A step that raises is an event too, with outcome ``failed``; the reason follows in the pair's outcome or problem.
        """
        values: dict[str, Any] = {}
        start = time.monotonic()
        try:
            yield values
        except BaseException:
            seconds = round(time.monotonic() - start, 2)
            self.event("step", pair, f"{step} failed after {seconds:.1f} s", step=step, seconds=seconds, outcome="failed")
            raise
        seconds = round(time.monotonic() - start, 2)
        self.event("step", pair, f"{text} in {seconds:.1f} s", step=step, seconds=seconds, outcome="ok", **values)

    def _row(self, event: Event, pair: str, text: str, values: dict[str, Any]) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        row = {"event": event, "time": stamp, "pair": pair, **values, "text": text}
        print(json.dumps({k: v for k, v in row.items() if v not in ("", None)}), file=self._out, flush=True)
