"""The linters are tests: one command checks all."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def files() -> list[Path]:
    """Every file of the project that is not ignored, committed or not."""
    git = ["git", "-c", "safe.directory=*", "-C", str(ROOT)]  # no test has a person's setting for another user's checkout
    words = [*git, "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file() and not path.is_symlink()]


def is_shell(path: Path) -> bool:
    """True for what a shell reads: by its name, or by its first line."""
    with path.open("rb") as stream:
        first = stream.readline(100)
    return path.suffix == ".sh" or re.match(rb"#!\s*/\S*?(env )?\b(ba|da)?sh\b", first) is not None


def run(*words: str) -> None:
    done = subprocess.run(words, check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words[:6])}:\n{done.stdout}{done.stderr}"


def test_ruff_finds_nothing() -> None:
    run(sys.executable, "-m", "ruff", "check", "--no-cache", ".")


def test_every_python_file_is_formatted_by_ruff() -> None:
    run(sys.executable, "-m", "ruff", "format", "--check", "--no-cache", ".")


def test_mypy_strict_finds_nothing() -> None:
    run(sys.executable, "-m", "mypy")


def test_shellcheck_finds_nothing_in_any_shell_file() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed (./doit.sh test installs it)")
    shell = sorted(str(path.relative_to(ROOT)) for path in files() if is_shell(path))
    assert {"doit.sh", ".ci/run", "bootstrap/engine.sh"} <= set(shell)
    run("shellcheck", "--external-sources", *shell)


LATER_ARGUMENTS = {
    **dict.fromkeys(("extract", "extractall", "unpack_archive"), "filter"),
    **dict.fromkeys(("parseaddr", "getaddresses"), "strict"),
}
LATER_NAMES = {"data_filter", "tar_filter", "fully_trusted_filter", "extraction_filter", "SetReparseDeferralEnabled"}
"""What Python 3.11.4 and later got as mends of security, and Debian's 3.11.2 has not."""


def later(text: str) -> list[str]:
    """What ``text`` uses of them."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            found += [f"{name}({word.arg}=)" for word in node.keywords if word.arg and LATER_ARGUMENTS.get(name) == word.arg]
        elif isinstance(node, ast.Attribute | ast.Name):
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            found += [name] if name in LATER_NAMES else []
        elif isinstance(node, ast.ImportFrom):
            found += [alias.name for alias in node.names if alias.name in LATER_NAMES]
    return found


def test_nothing_is_used_that_debians_python_has_not() -> None:
    """Linters know versions as 3.11 and 3.12 (mypy refuses what came with 3.12): Debian 12 has 3.11.2."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert settings["tool"]["mypy"]["python_version"] == "3.11"
    assert settings["project"]["requires-python"] == ">=3.11"
    used = {str(path.relative_to(ROOT)): names for path in files() if path.suffix == ".py" and (names := later(path.read_text()))}
    assert used == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("tar.extractall(place, filter='tar')", ["extractall(filter=)"]),
        ("tar.extract(member, place, filter=only)", ["extract(filter=)"]),
        ("shutil.unpack_archive(path, filter='data')", ["unpack_archive(filter=)"]),
        ("tarfile.data_filter(member, place)", ["data_filter"]),
        ("from tarfile import tar_filter", ["tar_filter"]),
        ("parseaddr(text, strict=True)", ["parseaddr(strict=)"]),
        ("tar.add(path, filter=plain); zip(a, b, strict=True); tar.extract(member)", []),
    ],
)
def test_what_a_later_python_got_is_known_wherever_it_is_used(text: str, found: list[str]) -> None:
    assert later(text) == found


def test_every_requirement_is_pinned_with_a_hash_and_no_line_names_an_index() -> None:
    text = (ROOT / "requirements.txt").read_text()
    pins = re.findall(
        r"^([a-z0-9._-]+)==\S+(?: ;[^\\]*)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE
    )
    rest = re.sub(r"^ *#.*\n|^[a-z0-9._-]+==.*\\\n|^    --hash=sha256:[0-9a-f]{64}(?: \\)?\n", "", text, flags=re.MULTILINE)
    assert rest == ""
    wished = re.findall(r"^([a-z][a-z0-9._-]*)", (ROOT / "requirements.in").read_text(), re.MULTILINE)
    assert set(wished) <= {name for name, _ in pins}


def test_no_file_names_the_host_of_a_package_archive() -> None:
    sources = [*Path("/etc/apt").glob("sources.list"), *Path("/etc/apt/sources.list.d").glob("*.[ls]*")]
    hosts = {host for path in sources for host in re.findall(r"https?://([a-z0-9.-]+\.[a-z]+)", path.read_text())}
    hosts |= {".".join(words) for words in (("pypi", "org"), ("files", "pythonhosted", "org"), ("registry", "npmjs", "org"))}
    named = [f"{path.relative_to(ROOT)}: {host}" for path in files() for host in hosts if host.encode() in path.read_bytes()]
    assert named == []


def test_no_module_is_longer_than_one_head_holds() -> None:
    long = {path.name: n for path in files() if path.suffix == ".py" and "tests" not in path.parts and (n := lines(path)) > 350}
    assert long == {}
    assert lines(ROOT / "dodo.py") < 150


def lines(path: Path) -> int:
    return path.read_text().count("\n")


def test_every_command_of_our_own_is_installed_as_a_plugin_that_exists() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["doit"]["plugins"]["command"]
    doit = Path(sys.executable).with_name("doit")
    listed = subprocess.run([doit, "help"], check=False, cwd=ROOT, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    for name in table:
        assert re.search(rf"^\s*doit {name}\b", listed.stdout, re.MULTILINE), name
