"""A root of Debian as a person has it who has installed nothing yet: minbase, ca-certificates and git.

It stands for a fresh machine of that release. Archives, proxies, name servers, certificates and pip's settings are this
machine's own, read from its configuration; all else is the release's.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.support import enter_root
from tests.support.cache import Cache
from tests.support.debian_roots import packed

ROOT: Final = Path(__file__).parents[2]
CHECKOUT: Final = "/root/coreos-nvidia"
"""Where the checkout lies in a root."""
_OF_THIS_MACHINE: Final = ("/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")


class BareRoot:
    """A root of ``release`` at ``place``, to be changed at will, with a clone of this checkout in it. Needs root."""

    def __init__(self, cache: Cache, release: str, place: Path) -> None:
        self.release, self.place = release, place
        self.checkout = place / CHECKOUT[1:]
        self._pip = cache.root.with_name("pip")
        place.mkdir(parents=True)
        subprocess.run(["tar", "-C", place, "-xpf", packed(cache, release), "--exclude=./dev/*"], check=True, timeout=600)
        for name in _OF_THIS_MACHINE:
            if Path(name).is_file():
                (place / name[1:]).unlink(missing_ok=True)
                shutil.copyfile(name, place / name[1:])
        clone(self.checkout)

    def run(self, command: str, seconds: float) -> subprocess.CompletedProcess[str]:
        """Run ``command`` by bash in the root; whatever it started has ended afterwards, the latest after ``seconds``."""
        self._pip.mkdir(parents=True, exist_ok=True)
        # --kill-child: the first process of the pid namespace takes all others of it along, daemons too.
        namespaces = ["unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child"]
        enter = [sys.executable, enter_root.__file__, str(self.place), str(self._pip), command]
        return subprocess.run(
            [*namespaces, *enter], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=seconds
        )


def clone(place: Path) -> None:
    """Clone this checkout to ``place``, with what is not committed yet."""
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, place], check=True, timeout=300)
    for name in _listed("--deleted"):
        (place / name).unlink(missing_ok=True)
    for name in _listed("--modified", "--others", "--exclude-standard"):
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name)


def _listed(*options: str) -> list[str]:
    command = ["git", "-C", str(ROOT), "ls-files", "-z", *options]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.split("\0")[:-1]
