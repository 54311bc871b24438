"""README, CONTRIBUTING and docs name only what exists, and the README names all that users may set and run.

Whether the README's commands do what it says is tested where there is an engine: tests/e2e/test_readme.py.
"""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from functools import cache

import msgspec
import pytest

from pipeline.config import distributions, policies, versions_toml
from pipeline.core import errors
from pipeline.update import families
from tests import forked
from tests.documents import README, ROOT, blocks, commands, documents, headings, links, spans

PLUGINS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["doit"]["plugins"]["command"]
TASKS = {"render", "image", "toolchain", "driver"}
VARIABLE = re.compile(r"\b(?:DRIVER_[A-Z_]+|DOCKER_HOST|SOURCE_DATE_EPOCH)\b")
MOVED = "docs/moved.md"
"""Names files that are no more, on purpose."""
NAMES = [str(path.relative_to(ROOT)) for path in documents() if str(path.relative_to(ROOT)) != MOVED]


@cache
def said(*words: str) -> str:
    done = forked.doit(words, ROOT, os.environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


def code(*folders: str) -> str:
    """All the code there is below some folders."""
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".sh", ".j2", ".toml"}]
    return "\n".join(path.read_text() for path in [*files, ROOT / "doit.sh", ROOT / "dodo.py", ROOT / "pyproject.toml"])


def invocations(name: str) -> list[list[str]]:
    """Every ``doit …`` and ``./doit.sh …`` of a document, as words."""
    found = []
    for text in [*commands(ROOT / name), *spans(ROOT / name)]:
        try:
            words = shlex.split(text)
        except ValueError:
            continue
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words.pop(0)
        if words and words[0] in {"doit", "./doit.sh", ".venv/bin/doit"}:
            found.append(words)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_command_and_option_of_doit_that_a_document_names_exists(name: str) -> None:
    known = set(re.findall(r"^\s*doit ([a-z-]+)", said("help"), re.MULTILINE)) | TASKS
    for words in invocations(name):
        rest = words[1:]
        if rest[:1] == ["down"]:
            assert words[0] == "./doit.sh"
            assert set(rest[1:]) <= {"--purge"}
            continue
        if rest[:1] == ["WORDS"]:
            continue
        command = rest[0] if rest and re.fullmatch("[a-z]+", rest[0]) else "run"
        assert command in known, words
        if command in {"test", *TASKS}:
            continue
        for option in (word.partition("=")[0] for word in rest if word.startswith("--")):
            assert re.search(rf"(^|[\s,]){option}(=|\s|$)", said("help", command), re.MULTILINE), words


def test_the_readme_names_every_command_of_ours() -> None:
    named = {words[1] for words in invocations("README.md") if len(words) > 1}
    assert set(PLUGINS) - {"run"} <= named, "say in README.md what it is for"


@pytest.mark.parametrize("name", NAMES)
def test_every_environment_variable_that_a_document_names_is_read_somewhere(name: str) -> None:
    assert set(VARIABLE.findall((ROOT / name).read_text())) <= set(
        VARIABLE.findall(code("pipeline", "bootstrap", "tests", "host", "image"))
    )


def test_the_readme_has_every_variable_that_the_pipeline_reads() -> None:
    read = set(re.findall(r"\b(?:DRIVER_[A-Z_]+[A-Z]|SOURCE_DATE_EPOCH|DOCKER_HOST)\b", code("pipeline", "bootstrap")))
    table = README.read_text().split("\n## Environment\n")[1].split("\n## ")[0]
    assert read <= set(VARIABLE.findall(table)), "add it to the table under 'Environment' in README.md"


@pytest.mark.parametrize("name", NAMES)
def test_every_file_that_a_document_names_exists_or_is_made_by_the_code(name: str) -> None:
    folder = (ROOT / name).parent
    for target in links(ROOT / name):
        assert target.startswith("https://") or (folder / target.partition("#")[0]).exists(), target
    made = code("pipeline", "bootstrap")
    for text in spans(ROOT / name):
        if re.fullmatch(r"[a-z0-9_]+\.py", text):
            assert (ROOT / text).exists() or list((ROOT / "pipeline").rglob(text)), text
        elif re.fullmatch(r"\.?[A-Za-z0-9_-]+(/[A-Za-z0-9_.*-]+)*/?|[A-Za-z0-9_-]+\.(md|toml|lock|txt|in|sh|py|yaml)", text) and (
            "/" in text or "." in text[1:]
        ):
            plain = text.rstrip("/")
            if plain.startswith("build/"):
                assert plain in made or plain.rpartition("/")[2] in made, text
            elif plain.split("/")[0] in {path.name for path in ROOT.iterdir()} or "." in plain:
                assert list(ROOT.glob(plain)) or list((ROOT / "pipeline").glob(plain)), text


def test_the_list_of_moved_files_leads_to_files_that_are_there() -> None:
    rows = re.findall(r"(?m)^\| `(\S+)` \| `(\S+)` \|$", (ROOT / MOVED).read_text())
    assert len(rows) > 100
    assert [(old, new) for old, new in rows if (ROOT / old).exists() or not (ROOT / new).exists()] == []


def test_every_table_and_key_of_versions_toml_is_explained_and_no_other() -> None:
    section = README.read_text().split("\n### Wishes\n")[1].split("\n## ")[0]
    explained: dict[str, set[str]] = {}
    table = ""
    for first, keys in (row.split("|")[1:3] for row in section.splitlines() if row.startswith("|")):
        table = "".join(re.findall(r"`\[+([a-z-]+)\]+`", first)) or table
        explained.setdefault(table, set()).update(re.findall(r"`([a-z_]+)`", keys))
    real: dict[str, set[str]] = {}
    for name in distributions.names():
        real[name] = {inner.encode_name for inner in msgspec.structs.fields(families.family(name).policy)}
    for field in (*msgspec.structs.fields(versions_toml.Wanted), *msgspec.structs.fields(policies.Policies)):
        if field.name == "families":
            continue
        kind = next((t for t in _structs(field.type)), None)
        real[field.encode_name] = {inner.encode_name for inner in msgspec.structs.fields(kind)} if kind else set()
    del explained[""]
    assert explained == real, "README.md, 'Wishes'"


def _structs(kind: object) -> list[type[msgspec.Struct]]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return [kind]
    return [found for inner in getattr(kind, "__args__", ()) for found in _structs(inner)]


def test_a_message_that_sends_people_to_the_readme_names_a_section_of_it() -> None:
    sections = re.findall(r"'([^']+)' in the README", code("pipeline", "bootstrap"))
    assert "Wishes" in sections
    assert set(sections) <= set(headings(README))


def test_the_readme_begins_with_what_this_is_and_the_two_commands() -> None:
    text = README.read_text()
    about = text.split("\n## ")[0].strip().splitlines()[2:]
    assert len(about) <= 7
    assert commands(README)[:2] == ["./doit.sh", "./doit.sh test"]
    assert (ROOT / ".ci/run").read_text().count("./doit.sh test") == 1


def test_the_tables_of_exit_statuses_are_those_of_the_code() -> None:
    statuses = {cls.exit_status for cls in _errors()}
    assert statuses == {1, 2, 3}
    readme = README.read_text().split("| exit status | means |")[1].split("\n\n")[0]
    assert re.findall(r"^\| (\d) \|", readme, re.MULTILINE) == ["0", "1", "2", "3"]
    sections = [title[0] for title in headings(ROOT / "docs/troubleshooting.md") if re.match(r"\d: ", title)]
    assert sections == ["1", "2", "3"]


def _errors() -> set[type[errors.PipelineError]]:
    return {v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, errors.PipelineError)}


QUOTED = re.compile(r"^\| ([^|]+) \|", re.MULTILINE)


def test_the_messages_in_the_troubleshooting_tables_are_in_the_code() -> None:
    source = re.sub(r'"\s*\n?\s*f?"', "", code("pipeline", "bootstrap"))
    plain = re.sub(r"\{[^{}\n]*\}|\$\{?\w+\}?|\$\d", "…", source)
    text = (ROOT / "docs/troubleshooting.md").read_text().split("\n## 2")[1].split("\n## On a host")[0]
    rows = [row for row in QUOTED.findall(text) if row not in {"it says", "---"}]
    assert len(rows) > 15
    for row in rows:
        parts = [part.strip(" '-()`") for part in re.split("…|: |,", re.sub(r"\b\d{3,4}\b", "…", row))]
        for part in parts:
            assert len(part) < 4 or part in plain, f"{row}: nothing says '{part}'"


def test_blocks_of_other_languages_are_what_they_say() -> None:
    for text in blocks(README, "toml"):
        assert tomllib.loads(text)
