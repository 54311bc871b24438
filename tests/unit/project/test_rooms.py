"""The rooms of ``pipeline/``: which may import which, no circle of modules, none too full."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.checkout import ROOT

HOUSE = ROOT / "pipeline"
MAY_IMPORT = {
    "core": "",
    "config": "core",
    "formats": "core",
    "fetch": "config core",
    "registry": "fetch config core",
    "engine": "fetch config core",
    "upstream": "config formats core",
    "trees": "formats fetch upstream config core",
    "plan": "trees config core",
    "outcomes": "plan config core",
    "proof": "trees formats fetch config core",
    "build": "proof outcomes plan registry engine trees fetch formats config core",
    "publish": "build outcomes plan registry formats config core",
    "update": "upstream trees plan engine fetch formats config core",
    "hosts": "core",
    "cli": "update publish build outcomes proof plan trees registry engine upstream fetch formats config core hosts",
}
"""CONTRIBUTING.md, "Layout", says what each holds."""
MOST = 12
"""Modules of one folder."""


def imports(path: Path, house: Path = HOUSE) -> Iterator[str]:
    """Give the dotted names below ``pipeline`` that the module at ``path`` imports anywhere in it."""
    package = path.relative_to(house.parent).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (*package[: len(package) - node.level + 1],) if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            for alias in node.names:
                inner = house.parent / module.replace(".", "/") / alias.name
                yield f"{module}.{alias.name}" if inner.is_dir() or inner.with_suffix(".py").exists() else module


def modules(house: Path = HOUSE) -> Mapping[str, Path]:
    """Give every module of the house by its dotted name."""
    found = {}
    for path in sorted(house.rglob("*.py")):
        parts = path.relative_to(house.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def arrows_up(house: Path = HOUSE) -> list[str]:
    """Give each import that the table does not allow, as ``pipeline.core.x imports pipeline.cli.y``."""
    wrong = []
    for name, path in modules(house).items():
        room = name.split(".")[1] if "." in name else ""
        for other in imports(path, house):
            if other.startswith("pipeline.") and room in MAY_IMPORT:
                target = other.split(".")[1]
                if target != room and target not in MAY_IMPORT[room].split():
                    wrong.append(f"{name} imports {other}")
    return wrong


def test_every_module_lies_in_a_room_of_the_table() -> None:
    rooms = {path.parent.name for path in HOUSE.glob("*/*.py")}
    assert rooms == set(MAY_IMPORT)
    assert {path.name for path in HOUSE.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_the_table_has_no_circle() -> None:
    list(TopologicalSorter({room: allowed.split() for room, allowed in MAY_IMPORT.items()}).static_order())


def test_imports_lead_downward_only() -> None:
    assert arrows_up() == []


def test_an_import_that_leads_upward_is_found(tmp_path: Path) -> None:
    """Plain, relative, inside a function, of a module and of a name in it."""
    house = tmp_path / "pipeline"
    for room in ("core", "cli"):
        (house / room).mkdir(parents=True)
        (house / room / "__init__.py").touch()
    (house / "cli/tasks.py").write_text("x = 1\n")
    texts = (
        "import pipeline.cli.tasks",
        "from ..cli import tasks",
        "from ..cli.tasks import x",
        "def f():\n    from ..cli import tasks",
    )
    for text in texts:
        (house / "core/errors.py").write_text(f"{text}\n")
        assert arrows_up(house) == ["pipeline.core.errors imports pipeline.cli.tasks"], text


def test_no_module_is_in_a_circle_of_imports() -> None:
    names = modules()
    graph = {name: {other for other in imports(path) if other in names and other != name} for name, path in names.items()}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" imports ".join(error.args[1]))


def test_no_folder_has_more_modules_than_a_head_holds() -> None:
    folders = [HOUSE, *(path for path in HOUSE.rglob("*") if path.is_dir() and path.name != "__pycache__")]
    full = {str(folder.relative_to(ROOT)): len({*folder.glob("*.py")} - {folder / "__init__.py"}) for folder in folders}
    assert {name: count for name, count in full.items() if count > MOST} == {}


def test_the_unit_tests_lie_in_the_same_rooms() -> None:
    """Besides those of pipeline/: what else the project has, and what tests use."""
    beside = {"bench", "bootstrap", "host", "image", "project", "support"}
    assert {path.parent.name for path in (ROOT / "tests/unit").glob("*/test_*.py")} == set(MAY_IMPORT) | beside
    assert list((ROOT / "tests/unit").glob("test_*.py")) == []
