"""Progress: lines for people, or one JSON event a step with stable names."""

from __future__ import annotations

import io
import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import RegistryError
from pipeline.core.progress import EVENTS, STEPS, Progress

DOCUMENT = Path(__file__).parents[3] / "docs" / "logs.md"


class Said:
    """A progress and what it has said."""

    def __init__(self, *, as_json: bool) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()
        self.progress = Progress(as_json=as_json, out=self.out, err=self.err)

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.getvalue().splitlines()]


def test_people_read_one_line_a_step_on_stderr() -> None:
    said = Said(as_json=False)
    with said.progress.step("debian/amd64:k-d", "build", "compiled open modules"):
        pass
    assert re.fullmatch(r"\[ +0\.\d s\] debian/amd64:k-d: compiled open modules in 0\.0 s\n", said.err.getvalue())
    assert said.out.getvalue() == ""


def test_programs_read_one_event_a_step_on_stdout() -> None:
    said = Said(as_json=True)
    with said.progress.step("debian/amd64:k-d", "push", "pushed") as values:
        values["bytes"] = 7
    (event,) = said.events()
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", event.pop("time"))
    assert event.pop("seconds") >= 0
    assert event == {
        "event": "step", "pair": "debian/amd64:k-d", "step": "push", "bytes": 7, "outcome": "ok", "text": "pushed in 0.0 s",
    }  # fmt: skip
    assert said.err.getvalue() == ""


def test_a_step_that_raises_is_an_event_too() -> None:
    said = Said(as_json=True)
    with pytest.raises(KeyError), said.progress.step("p", "proof", "proved"):
        raise KeyError
    assert [(e["step"], e["outcome"]) for e in said.events()] == [("proof", "failed")]


def test_a_problem_is_said_once_on_stderr_and_is_an_event_for_programs() -> None:
    said = Said(as_json=True)
    for _ in range(3):
        said.progress.problem(RegistryError("the registry does not answer"))
    assert said.err.getvalue() == "doit: the registry does not answer\n"
    assert [(e["event"], e["text"]) for e in said.events()] == [("problem", "the registry does not answer")]


def test_lines_of_many_threads_do_not_mix() -> None:
    said = Said(as_json=True)

    def say(name: str) -> None:
        for _ in range(50):
            said.progress.note(name, "x" * 500)

    threads = [threading.Thread(target=say, args=(f"p{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said.events()) == 400


def test_a_text_with_line_ends_stays_one_line() -> None:
    said = Said(as_json=True)
    said.progress.note("p", "one\ntwo")
    assert said.out.getvalue().count("\n") == 1


def test_every_name_is_documented_and_every_documented_name_is_one() -> None:
    text = DOCUMENT.read_text()
    for field, names in (("event", EVENTS), ("step", STEPS)):
        row = re.search(rf"^\| `{field}` \| ([^|]*) \|", text, re.MULTILINE)
        assert row is not None
        assert tuple(re.findall(r"`(\w+)`", row[1])) == names
    for line in re.findall(r"^\{.*\}$", text, re.MULTILINE):
        assert json.loads(line)["event"] in EVENTS
