"""Base addresses of package archives: DRIVER_ARCHIVES, else ``[archives]`` of versions.toml, else the machine's apt.

The lock names a package by archive and path, never by a host, so that it is true on every machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from ..config.versions_toml import Wanted
from ..core.errors import UsageError
from ..core.lazy import lazy

_BASE: Final = re.compile(r"https?://[A-Za-z0-9.\[\]:@%_~+-]+(/[A-Za-z0-9._~+%-]+)*/?")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]*")


class Archives:
    """Where archives lie for this run."""

    def __init__(self, wanted: Wanted, environ: Mapping[str, str] = os.environ, apt_root: Path = Path("/etc/apt")) -> None:
        self._wanted, self._environ, self._apt = wanted, environ, apt_root

    def bases(self, name: str) -> tuple[str, ...]:
        """Addresses of archive ``name`` without a slash at their end, in the order in which to try them.

        Raises UsageError where none is known.
        """
        found = self._told.get(name) or tuple(self._wanted.archives.get(name, ())) or self._apts.get(name, ())
        if not found:
            raise UsageError(
                f"no address of the package archive '{name}' is known",
                hint=f"set DRIVER_ARCHIVES='{name}=https://…/{name}', or [archives] in versions.toml",
            )
        return tuple(_checked(base, name) for base in found)

    def check(self, pinned: Callable[[], Collection[str]]) -> None:
        """Look DRIVER_ARCHIVES over before anything is asked for. ``pinned`` gives the names that the lock has.

        Raises UsageError for a name that nothing uses: it is misspelt, and its addresses would never be tried.
        """
        suites = self._wanted.debian.suites if self._wanted.debian else ()
        known = {*self._wanted.archives, *(suite.archive for suite in suites)}
        if not known.issuperset(self._told):
            known |= {*pinned()}
        for name, found in self._told.items():
            if name not in known:
                raise UsageError(
                    f"DRIVER_ARCHIVES names the archive '{name}', which neither versions.toml nor versions.lock has",
                    hint=f"one of {', '.join(sorted(known))}" if known else "leave it out",
                )
            for base in found:
                _checked(base, name)

    @lazy
    def _told(self) -> dict[str, tuple[str, ...]]:
        told: dict[str, tuple[str, ...]] = {}
        for item in self._environ.get("DRIVER_ARCHIVES", "").split():
            name, equals, base = item.partition("=")
            if not equals or not _NAME.fullmatch(name):
                raise UsageError(f"DRIVER_ARCHIVES holds '{item}'", hint="it is a list of name=address, divided by spaces")
            told[name] = (*told.get(name, ()), base)
        return told

    @lazy
    def _apts(self) -> dict[str, tuple[str, ...]]:
        """The machine's own sources; an address belongs to the archive that its path ends with."""
        found: dict[str, tuple[str, ...]] = {}
        for base in self._addresses():
            name = base.rstrip("/").rpartition("/")[2]
            if _BASE.fullmatch(base) and base.rstrip("/") not in found.get(name, ()):
                found[name] = (*found.get(name, ()), base.rstrip("/"))
        return found

    def _addresses(self) -> Iterator[str]:
        parts = self._apt / "sources.list.d"
        for path in (self._apt / "sources.list", *sorted(parts.glob("*.list")), *sorted(parts.glob("*.sources"))):
            try:
                text = path.read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            yield from _deb822(text) if path.suffix == ".sources" else _one_line(text)


def _one_line(text: str) -> Iterator[str]:
    """``deb [options] address suite component…`` (sources.list(5))."""
    for line in text.splitlines():
        found = re.match(r"\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)", line)
        if found:
            yield found[1]


def _deb822(text: str) -> Iterator[str]:
    """Stanzas with ``Types``, ``URIs``, ``Enabled`` (sources.list(5))."""
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace() and key:
                fields[key] += " " + line.strip()
            elif ":" in line:
                key, _, value = line.partition(":")
                key = key.strip().lower()
                fields[key] = value.strip()
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes").lower() not in (
            "no",
            "false",
            "0",
        ):
            yield from fields.get("uris", "").split()


def _checked(base: str, name: str) -> str:
    if not _BASE.fullmatch(base):
        raise UsageError(f"'{base}' is not an address of the archive '{name}'", hint="it looks like https://host/path")
    return base.rstrip("/")
