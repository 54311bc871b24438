"""Runs the steps of a workflow's job in order, each with the shell that GitHub would use, on this machine.

What is not run: ``uses:`` steps (the test lays out the checkout) and the container. Expressions are evaluated as far as our
workflows use them: names with dots, strings, ``==``, ``!=``, ``&&``, ``||``, ``!``, always(), cancelled(), fromJSON().
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

SHELL: Final = ("bash", "--noprofile", "--norc", "-eo", "pipefail")
"""https://docs.github.com/actions/reference/workflows-and-actions/workflow-syntax: what ``shell: bash`` means."""
_TOKEN: Final = re.compile(r"\s*(?:('(?:[^']|'')*')|(&&|\|\||==|!=|!|\(|\))|([A-Za-z_][\w-]*(?:\.[A-Za-z_*][\w-]*)*)|([0-9.]+))")


def load(path: Path) -> dict[str, Any]:
    """The workflow as plain data; ``on`` is a string key here (YAML 1.2)."""
    document: dict[str, Any] = json.loads(json.dumps(YAML(typ="safe", pure=True).load(path.read_text())))
    return document


def evaluate(text: str, contexts: Mapping[str, Any]) -> Any:
    """One expression, without its braces."""
    words: list[str] = []
    values: list[Any] = []
    place = 0
    while place < len(text.rstrip()):
        found = _TOKEN.match(text, place)
        if found is None:
            raise ValueError(f"not an expression: {text}")
        place = found.end()
        string, operator, name, number = found.groups()
        if operator:
            words.append({"&&": " and ", "||": " or ", "!": " not "}.get(operator, operator))
        elif name in ("always", "cancelled", "fromJSON"):
            words.append(name)
        else:
            value: Any = string[1:-1].replace("''", "'") if string else float(number) if number else _look(name, contexts)
            values.append(value)
            words.append(f"v[{len(values) - 1}]")
    allowed = {"v": values, "always": lambda: True, "cancelled": lambda: False, "fromJSON": json.loads}
    return eval("".join(words), {"__builtins__": {}}, allowed)  # our own workflows' expressions, out of tokens made above


def _look(name: str, contexts: Mapping[str, Any]) -> Any:
    value: Any = contexts
    for part in name.split("."):
        value = value.get(part, "") if isinstance(value, Mapping) else ""
    return value


def fill(text: Any, contexts: Mapping[str, Any]) -> Any:
    """``text`` with every ``${{ }}`` evaluated; the value itself where there is nothing else."""
    if not isinstance(text, str):
        return text
    if whole := re.fullmatch(r"\$\{\{((?:(?!\}\}).)*)\}\}", text.strip(), re.DOTALL):
        return evaluate(whole[1], contexts)
    return re.sub(r"\$\{\{(.*?)\}\}", lambda found: _text(evaluate(found[1], contexts)), text)


def _text(value: Any) -> str:
    return {True: "true", False: "false", None: ""}.get(value, str(value)) if isinstance(value, bool | None) else str(value)


@dataclass
class Ran:
    """A job that ran: did every step end with 0, what did they say, what are the job's outputs."""

    success: bool
    log: str
    outputs: dict[str, str]
    summary: str
    steps: list[tuple[str, int]] = field(default_factory=list)


def run_job(job: Mapping[str, Any], checkout: Path, contexts: Mapping[str, Any], temp: Path, environ: Mapping[str, str]) -> Ran:
    """Run the ``run:`` steps of ``job`` in ``checkout``. ``environ`` is what the machine itself has."""
    temp.mkdir(parents=True, exist_ok=True)
    ran = Ran(success=True, log="", outputs={}, summary="")
    steps: dict[str, Any] = {}
    for number, step in enumerate(job["steps"]):
        if "run" not in step:
            continue
        here = {**contexts, "steps": steps}
        condition = str(step.get("if", ""))
        wanted = bool(fill(condition if "${{" in condition else f"${{{{ {condition or 'always()'} }}}}", here))
        if not wanted or (not ran.success and "always()" not in condition):
            continue
        output, summary = temp / f"output-{number}", temp / f"summary-{number}"
        output.touch()
        summary.touch()
        told = {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(summary), "RUNNER_TEMP": str(temp)}
        told |= {"GITHUB_WORKSPACE": str(checkout), "CI": "true", "GITHUB_ACTIONS": "true"}
        for level in (contexts.get("env", {}), job.get("env", {}), step.get("env", {})):
            told |= {name: _text(fill(value, here)) for name, value in level.items()}
        script = temp / f"step-{number}.sh"
        script.write_text(fill(step["run"], here))
        done = subprocess.run(
            [*SHELL, str(script)],
            check=False, cwd=checkout, env={**environ, **told}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=600,
        )  # fmt: skip
        ran.log += f"+ {step.get('name', step['run'])}\n{done.stdout}"
        ran.summary += summary.read_text()
        ran.steps.append((str(step.get("name", "")), done.returncode))
        if "id" in step:
            lines = (line.partition("=") for line in output.read_text().splitlines())
            steps[step["id"]] = {"outputs": {name: value for name, _, value in lines}}
        ran.success = ran.success and done.returncode == 0
    here = {**contexts, "steps": steps}
    ran.outputs = {name: _text(fill(value, here)) for name, value in job.get("outputs", {}).items()}
    return ran


def machine(programs: Path, **changes: str) -> dict[str, str]:
    """This machine's environment without what a runner does not have, ``programs`` first on its PATH."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TMPDIR", "DOCKER_HOST")}
    return {**kept, "PATH": f"{programs}:{kept['PATH']}", **changes}
