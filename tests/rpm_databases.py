"""Real databases of rpm: packages built by rpmbuild and entered by rpm itself, without their files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

MISSING = "rpm and rpmbuild are not installed (./doit.sh test installs them)"


def installed() -> bool:
    """True where databases can be made here."""
    return shutil.which("rpm") is not None and shutil.which("rpmbuild") is not None


def database(root: Path, *packages: str, arch: str = "x86_64") -> Path:
    """A database with ``packages``, each as ``kernel-core 6.19.5 300.fc44``; the path of its ``rpmdb.sqlite``."""
    root.mkdir(parents=True)
    specs = []
    for number, package in enumerate(packages):
        name, version, release = package.split()
        spec = root / f"{number}.spec"
        fields = {"Name": name, "Version": version, "Release": release, "Summary": "synthetic", "License": "none"}
        head = "".join(f"{field}: {value}\n" for field, value in fields.items())
        spec.write_text(f"{head}%description\nsynthetic\n%files\n")
        specs.append(str(spec))
    _run("rpmbuild", "--quiet", "-bb", "--target", arch, "--define", f"_topdir {root}/top", *specs)
    built = [str(path) for path in (root / "top/RPMS").rglob("*.rpm")]
    place = ["--dbpath", str(root / "db"), "--define", "_db_backend sqlite"]
    _run("rpm", *place, "--initdb")
    if built:
        _run("rpm", *place, "-i", "--justdb", "--nodeps", "--noscripts", "--ignorearch", "--force", *built)
    return root / "db/rpmdb.sqlite"


def _run(*words: str) -> None:
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{words[0]}: {done.stdout}{done.stderr}"
