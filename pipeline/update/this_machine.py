"""The kernel of the machine one stands on, or of another whose files were copied here: release, configuration, image.

Nothing is taken for granted: the image says itself which kernel it is, and so does the configuration (pin_source).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..config.records import Arch
from ..core.errors import BadFileError, PipelineError, UsageError
from ..core.versions import KernelRelease
from ..formats.kernels import kernel_image

_ARCHES: Final[dict[str, Arch]] = {"x86_64": "amd64", "aarch64": "arm64"}
_CONFIGS: Final = ("boot/config-{}", "usr/boot/config-{}", "lib/modules/{}/config", "lib/modules/{}/build/.config")
"""Debian and most others; Container Linux and Flatcar, whose /boot is another; Fedora; who compiled it here."""
_IMAGES: Final = (
    "boot/vmlinuz-{}",
    "lib/modules/{}/vmlinuz",
    "usr/boot/vmlinuz-{}",
    "boot/flatcar/vmlinuz-a",
    "boot/flatcar/vmlinuz-b",
    "boot/coreos/vmlinuz-a",
    "boot/coreos/vmlinuz-b",
    "boot/vmlinuz",
    "boot/Image",
)
_RUNNING: Final = "proc/config.gz"
MAX_IMAGE: Final = 1 << 29
"""Bytes of a kernel image."""


@dataclass(frozen=True)
class Machine:
    """``config`` and ``image`` are None where there is none; ``told``: the configuration was named by the user.

    ``id`` and ``version_id`` are those of its os-release. ``unread`` says why an image that is there could not be taken.
    """

    release: str
    arch: Arch
    config: Path | None
    image: Path | None
    id: str = "linux"
    version_id: str = "0"
    told: bool = False
    unread: str = ""


def this_machine(
    *,
    release: str = "",
    config: str = "",
    image: str = "",
    os_release: str = "",
    root: Path = Path("/"),
    running: str = "",
    machine: str = "",
) -> Machine:
    """What is known of the machine below ``root``; what is told goes before what is found.

    ``running`` and ``machine`` are ``uname -r`` and ``uname -m``. Raises UsageError for a release that is none or a processor
    that no driver is for, BadFileError for a named file that cannot be read or an image of another kernel.
    """
    running, machine = running or os.uname().release, machine or os.uname().machine
    name = release or running
    try:
        KernelRelease(name)
    except PipelineError as error:
        raise UsageError(error.message, hint=error.hint) from error
    if machine not in _ARCHES:
        raise UsageError(f"NVIDIA has no driver for {machine}", hint="x86_64 and aarch64 are possible")
    for given in filter(None, (config, image, os_release)):
        mode = _mode(Path(given))
        if mode and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # the others are told of by who reads them
            raise BadFileError(f"{given} is no plain file", hint="a pipe or a device has no end to read to")
    here = name == running
    places = ([_RUNNING] if here else []) + [place.format(name) for place in _CONFIGS]
    found, unread = (Path(image), "") if image else _image(root, (p.format(name) for p in _IMAGES), name)
    if found and image:
        said = _said(found)
        if said != name:
            raise BadFileError(f"{found} is {_called(said)}, not of {name}", hint="give the kernel image of that very kernel")
    ident = _os_release(Path(os_release) if os_release else root / "etc/os-release") if here or os_release else {}
    configs = (root / place for place in places if stat.S_ISREG(_mode(root / place)))
    return Machine(
        release=name,
        arch=_ARCHES[machine],
        config=Path(config).absolute() if config else next(configs, None),
        image=found.absolute() if found else None,
        id=ident.get("ID", "linux"),
        version_id=ident.get("VERSION_ID") or ident.get("BUILD_ID") or "0",
        told=bool(config),
        unread=unread,
    )


def no_config(machine: Machine) -> UsageError:
    """What to say where the configuration is nowhere."""
    places = ", ".join(f"/{place.format(machine.release)}" for place in (_RUNNING, *_CONFIGS[:2]))
    unread = f"; {machine.unread}" if machine.unread else ""  # what is unreadable of /boot, all of it may be
    return UsageError(
        f"no configuration of {machine.release} on this machine (looked for {places}{unread})",
        hint="'modprobe configs' may bring /proc/config.gz; else copy it from where that kernel was built: --config FILE",
    )


def _mode(path: Path) -> int:
    """Of a file that can be seen; 0 of one that is not there or lies in a folder that is root's alone, as /boot may be."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _image(root: Path, places: Iterable[str], name: str) -> tuple[Path | None, str]:
    """The first of ``places`` that is that kernel, and what to say of one that could not be read."""
    unread = ""
    for place in dict.fromkeys(places):
        path = root / place
        try:
            if stat.S_ISREG(path.stat().st_mode) and _said(path) == name:
                return path, ""
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:  # a /boot that is root's alone
            unread = unread or f"{path}: {error.strerror}"
        except BadFileError as error:
            unread = unread or str(error)
    return None, unread


def _said(path: Path) -> str | None:
    try:
        if path.stat().st_size > MAX_IMAGE:
            raise BadFileError(f"{path} has more than {MAX_IMAGE} bytes", hint="that is no kernel image")
        return kernel_image.release(path)
    except OSError as error:
        raise BadFileError(f"{path}: {error.strerror}", hint="it has to be a file that this user can read") from error
    except PipelineError as error:
        if isinstance(error, BadFileError):
            raise
        raise BadFileError(f"{path}: {error.message}", hint=error.hint) from error


def _called(said: str | None) -> str:
    return f"the kernel image of {said}" if said else "no kernel image that says which kernel it is"


def _os_release(path: Path) -> dict[str, str]:
    """ID, VERSION_ID and BUILD_ID (os-release(5)); nothing where there is no such file."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = re.findall(r"""^(ID|VERSION_ID|BUILD_ID)=["']?([0-9A-Za-z._-]{1,40})["']?\s*$""", text, re.MULTILINE)
    return {key: value.lower() if key == "ID" else value for key, value in pairs}
