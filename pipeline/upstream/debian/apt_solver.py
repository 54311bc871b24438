"""Which packages a set of packages needs: apt's own solver, on indices that we verified, with an empty system.

apt reads only the text it is given (a private flat repository on disk), touches no network, no system file and needs no
root; its answer is names and versions, whose hashes then come from our own reading of the signed index.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ...core.errors import UpstreamDataError, UsageError
from .package_index import Indices, Package

_INSTALL = re.compile(r"^Inst (\S+) \((\S+) ", re.MULTILINE)


class Solver:
    """apt over the main indices of some suites, for one architecture. A context manager: its directory goes with it.

    Raises UsageError where apt is not installed.
    """

    def __init__(self, indices: Indices, arch: str) -> None:
        if shutil.which("apt-get") is None:
            raise UsageError(
                "apt-get is not installed", hint="'doit update' needs apt's solver: run it on Debian or in a container"
            )
        self._indices = indices
        self._scratch = tempfile.TemporaryDirectory(prefix="driver-apt-")
        root = Path(self._scratch.name)
        for name in ("lists/partial", "archives/partial", "parts", "repo"):
            (root / name).mkdir(parents=True)
        (root / "status").touch()
        (root / "repo" / "Packages").write_bytes(b"\n".join(indices.texts))
        (root / "sources.list").write_text(f"deb [trusted=yes] file:{root}/repo ./\n")
        (root / "apt.conf").write_text(
            f"""
Dir::Etc::Parts "{root}/parts"; Dir::Etc::Main "/dev/null"; Dir::Etc::SourceList "{root}/sources.list";
Dir::Etc::SourceParts "{root}/parts"; Dir::Etc::Preferences "/dev/null"; Dir::Etc::PreferencesParts "{root}/parts";
Dir::Etc::Trusted "/dev/null"; Dir::Etc::TrustedParts "{root}/parts";
Dir::State "{root}"; Dir::State::Lists "{root}/lists"; Dir::State::Status "{root}/status"; Dir::Cache "{root}";
Dir::Cache::Archives "{root}/archives"; Dir::Log "{root}";
APT::Architecture "{arch}"; APT::Architectures {{ "{arch}"; }}; APT::Install-Recommends "false"; APT::Sandbox::User "";
Debug::NoLocking "true"; Acquire::Languages "none"; APT::Get::AllowUnauthenticated "true";
"""
        )
        self._environ = {**os.environ, "APT_CONFIG": str(root / "apt.conf"), "LC_ALL": "C"}

    def __enter__(self) -> Solver:
        try:
            self._run("update")
        except BaseException:
            self._scratch.cleanup()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.cleanup()

    def closure(self, names: Sequence[str]) -> list[Package]:
        """Every package that ``names`` need together, themselves included.

        Raises UpstreamDataError where the indices cannot satisfy them.
        """
        text = self._run("install", "--simulate", "--yes", "--", *names)
        found: list[Package] = []
        for name, version in _INSTALL.findall(text):
            package = self._indices.exact(name.partition(":")[0], version)
            if package is None:
                raise UpstreamDataError(f"apt chose {name} {version}, which no signed index lists", hint="try again later")
            found.append(package)
        if not found:
            raise UpstreamDataError("apt chose no package at all", hint=f"check the names: {' '.join(names)}")
        return found

    def _run(self, *words: str) -> str:
        done = subprocess.run(["apt-get", *words], env=self._environ, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = next((line for line in done.stderr.splitlines() if line.startswith("E:")), done.stderr.strip()[-200:])
            raise UpstreamDataError(
                f"apt-get {words[0]} failed: {said}", hint="check the package names in [debian] of versions.toml"
            )
        return done.stdout
