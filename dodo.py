"""The task graph. Read it as a table of contents: what each task does stands in ``pipeline/``.

    toolchain:<os> ─┐
    headers         ├─> image:<os>/<arch>:<kernel>-<driver>   (render, build, prove, push)
    driver:<nvidia> ┘

``doit`` does the images; toolchains and drivers are made when an image that is not done needs them. The registry holds
the truth: a pair whose recipe tag is there is up to date, on any machine, whatever doit's own database says.
Commands that are no tasks are plugins, one module each in ``pipeline/commands/``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.cli import tasks
from pipeline.cli.commands.base import or_exit, state_file
from pipeline.cli.commands.doit_overrides import Faults
from pipeline.cli.workspace import here

DOIT_CONFIG = {
    "default_tasks": ["image"],
    "dep_file": state_file(),
    "backend": "sqlite3",
    "par_type": "thread",
    "verbosity": 2,
    "reporter": Faults,
}


@or_exit
def task_image() -> Iterator[dict[str, Any]]:
    """one pair: render, build, prove, push"""
    yield from tasks.images(here())


@or_exit
def task_toolchain() -> Iterator[dict[str, Any]]:
    """what compiles for one os"""
    yield from tasks.toolchains(here())


@or_exit
def task_driver() -> Iterator[dict[str, Any]]:
    """the userspace of one driver"""
    yield from tasks.drivers(here())


@or_exit
def task_render() -> Iterator[dict[str, Any]]:
    """write the Dockerfiles"""
    yield from tasks.render(here())
