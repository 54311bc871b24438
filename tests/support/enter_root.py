"""Run as a program: ``python enter_root.py ROOT PIP_CACHE COMMAND`` makes the folder ROOT the whole file system, then runs
COMMAND by bash as a login of root would have it. To be called in mount and pid namespaces of its own (``unshare``).

ROOT becomes a mount of its own and the old one goes (pivot_root, not chroot): a container engine in it remounts ``/``.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

ENVIRON = {"HOME": "/root", "LANG": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
_MNT_DETACH = 2


def mount(*words: str) -> None:
    """Mount as mount(8) would."""
    subprocess.run(["mount", *words], check=True)


def main(root: str, pip_cache: str, command: str) -> None:
    """Never returns."""
    libc = ctypes.CDLL(None, use_errno=True)
    mount("--bind", root, root)
    os.chdir(root)
    for name in ("proc", "sys", "dev", "run", "root/.cache/pip", ".old"):
        Path(name).mkdir(parents=True, exist_ok=True)
    mount("-t", "proc", "proc", "proc")
    mount("--rbind", "/sys", "sys")
    mount("--rbind", "/dev", "dev")
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "run")
    mount("--bind", pip_cache, "root/.cache/pip")
    subprocess.run(["pivot_root", ".", ".old"], check=True)
    os.chdir("/")
    if libc.umount2(b"/.old", _MNT_DETACH):  # by hand: no program of the old root can be started any more
        raise OSError(ctypes.get_errno(), "umount", "/.old")
    Path("/.old").rmdir()
    os.chdir("/root")
    os.execve("/bin/bash", ["bash", "-euc", command], ENVIRON)


if __name__ == "__main__":
    main(*sys.argv[1:])
