"""Roots of Debian's releases, made by mmdebstrap once and kept packed: minbase, ca-certificates and git, nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.cache import Cache, code_of, versions_of

PACKAGES: Final = "ca-certificates,git"
_OPTION: Final = re.compile(r'Acquire::\S*(?:Proxy|CaInfo|Verify-\w+|Check-Valid-Until)\S* "[^"]+";', re.IGNORECASE)


@dataclass(frozen=True)
class Archives:
    """Base addresses of Debian's two archives, as this machine's apt has them."""

    debian: str
    security: str

    @classmethod
    def of_this_machine(cls) -> Archives:
        """Raises LookupError where apt knows no archive of Debian's stable releases."""
        command = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Identifier: Packages"]
        rows = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()
        found = {release: base.rstrip("/") for base, _, release in (row.partition(" ") for row in reversed(rows))}
        main = next((name for name in found if f"{name}-security" in found), None)
        if main is None:
            raise LookupError(f"this machine's apt names no release of Debian with its security archive, only {sorted(found)}")
        return cls(found[main], found[f"{main}-security"])

    def sources(self, release: str) -> list[str]:
        """Lines of sources.list."""
        suites = ((self.debian, release), (self.debian, f"{release}-updates"), (self.security, f"{release}-security"))
        return [f"deb {base} {suite} main" for base, suite in suites]

    @property
    def variable(self) -> str:
        """``DRIVER_ARCHIVES``."""
        return f"debian={self.debian} debian-security={self.security}"


def packed(cache: Cache, release: str) -> Path:
    """A tar of the root of ``release``, from the cache where it is still the same point release.

    Its security archive changes daily and decides nothing here: a machine that was installed last week lacks updates too.
    """
    archives = Archives.of_this_machine()
    dumped = subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True, timeout=60).stdout
    options = [line for line in dumped.splitlines() if _OPTION.fullmatch(line)]
    parts: dict[str, str | bytes | Path] = {
        "release": release,
        "packages": PACKAGES,
        "sources": "\n".join(archives.sources(release)),
        "options": "\n".join(options),
        "index": read_index(archives.debian, release),
        "maker": versions_of("mmdebstrap"),
        "code": code_of(sys.modules[__name__]),
    }

    def make(folder: Path) -> None:
        command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={PACKAGES}"]
        command += [f"--aptopt={option}" for option in options]
        command += [release, str(folder / "root.tar"), *archives.sources(release)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, f"mmdebstrap {release}: {done.stderr[-2000:]}"

    return cache.entry("bare-root", parts, make) / "root.tar"


def read_index(base: str, suite: str) -> bytes:
    """Read the signed index of a suite, which changes whenever a package of it does."""
    with urllib.request.urlopen(f"{base}/dists/{suite}/InRelease", timeout=60) as answer:
        return bytes(answer.read(4 << 20))
