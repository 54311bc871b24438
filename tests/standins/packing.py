"""Vendors' archive formats, made with the programs that the vendors use: rpmbuild, mke2fs and sfdisk, makeself."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

EPOCH: Final = "1767225600"
_SPEC: Final = """
Name: {name}
Version: {version}
Release: {release}
Summary: stand-in
License: GPL-2.0-only
BuildArch: {arch}
AutoReqProv: no
%define _binary_payload {payload}
%define _build_id_links none
%define __os_install_post %{{nil}}
%define __spec_install_post %{{nil}}
%define debug_package %{{nil}}
%description
A stand-in of the tests, made of Debian's kernel.
%files
%defattr(-,root,root)
/*
"""
PAYLOADS: Final = {"zstd": "w19.zstdio", "xz": "w2.xzdio", "gzip": "w6.gzdio"}


def run(*words: str | Path, cwd: Path | None = None, environ: Mapping[str, str] | None = None) -> str:
    """What a program says. A program that fails is an assertion with its last words."""
    done = subprocess.run(
        [str(w) for w in words], cwd=cwd, env={**os.environ, **(environ or {}), "LC_ALL": "C"}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{words[0]}: {(done.stdout + done.stderr)[-1500:]}"
    return done.stdout


def rpm(root: Path, name: str, version: str, release: str, work: Path, *, arch: str = "x86_64", packing: str = "zstd") -> Path:
    """An RPM of the tree ``root``, made by rpmbuild."""
    work.mkdir(parents=True, exist_ok=True)
    spec = work / f"{name}.spec"
    level = PAYLOADS[packing] if packing != "zstd" else "w3.zstdio"
    spec.write_text(_SPEC.format(name=name, version=version, release=release, arch=arch, payload=level))
    top = work / "rpmbuild"
    # The tree is the build root itself: nothing is compiled, and rpmbuild 4.18 empties no build root without %install.
    run("rpmbuild", "-bb", "--quiet", "--noclean", "--define", f"_topdir {top}", "--define", "_rpmdir " + str(work / "rpms"),
        "--buildroot", root, "--target", arch, "--define", "_unpackaged_files_terminate_build 0", "--nodeps", spec,
        environ={"SOURCE_DATE_EPOCH": EPOCH, "HOME": str(work)})  # fmt: skip
    return work / "rpms" / arch / f"{name}-{version}-{release}.{arch}.rpm"


def disk_image(root: Path, out: Path, *, megabytes: int = 64, label: str = "ROOT") -> Path:
    """A disk like Flatcar's developer container: GPT, one ext4 partition at 2 MiB named ``label``, bzip2."""
    system, disk = out.with_suffix(".ext4"), out.with_suffix("")
    run("mke2fs", "-q", "-t", "ext4", "-L", label, "-d", root, "-E", "no_copy_xattrs,lazy_itable_init=0", system, f"{megabytes}M",
        environ={"SOURCE_DATE_EPOCH": EPOCH})  # fmt: skip
    with disk.open("wb") as image:
        image.truncate((megabytes + 4) << 20)
    table = f'label: gpt\nfirst-lba: 4096\nstart=4096, size={megabytes * 2048}, name="{label}"\n'
    subprocess.run(["sfdisk", "--quiet", disk], input=table, text=True, check=True, capture_output=True)
    run("dd", f"if={system}", f"of={disk}", "bs=1M", "seek=2", "conv=notrunc,sparse", "status=none")
    system.unlink()
    run("bzip2", "-1", "--force", disk)
    return disk.with_name(disk.name + ".bz2")


def run_file(root: Path, out: Path, *, packing: str = "--xz") -> Path:
    """A self-extracting archive of the tree ``root``, made by makeself."""
    # The level is for time alone.
    run("makeself", "--quiet", packing, "--complevel", "1", "--nox11", "--nomd5", "--nocrc",
        "--tar-extra", "--owner=0 --group=0 --sort=name",
        root, out, "stand-in", "./nvidia-installer")  # fmt: skip
    return out


def have(*programs: str) -> bool:
    """True where all of ``programs`` are installed."""
    return all(shutil.which(program) for program in programs)


def signed_rpm(path: Path, home: Path, out: Path) -> Path:
    """A copy of the package ``path`` in ``out``, signed with the only secret key of the GnuPG home ``home``."""
    out.mkdir(parents=True, exist_ok=True)
    copy = Path(shutil.copy2(path, out))
    key = next(
        line.split(":")[9] for line in run("gpg", "--homedir", home, "--with-colons", "-K").splitlines() if line[:3] == "fpr"
    )
    run("rpmsign", "--addsign", "--define", f"_gpg_name {key}", "--define", f"_gpg_path {home}", "--define",
        f"__gpg {shutil.which('gpg')}", copy, environ={"GNUPGHOME": str(home), "GPG_TTY": ""})  # fmt: skip
    return copy
