"""Indexes for the page and the table: invented outcomes of invented kernels, in the real form."""

from __future__ import annotations

from typing import Any

from pipeline.outcomes.index import Bytes, Entry, Index, Missing, Seconds

DRIVERS = ("595.58.01", "580.178.04", "570.207", "550.163.01", "535.309.01", "535.261.03", "470.256.02", "390.157")
EVIL = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def entry(os: str, kernel: str, driver: str, number: int, releases: tuple[dict[str, str], ...]) -> Entry:
    """One invented pair; what became of it goes round with ``number``."""
    values: dict[str, Any] = {
        "os": os,
        "arch": "amd64",
        "kernel": kernel,
        "driver": driver,
        "releases": releases,
        "headers": f"sha256:{sum(kernel.encode()):064x}",
        "recipe": f"sha256:{number:064x}",
        "released": f"2026-{number % 9 + 1:02d}-{number % 28 + 1:02d}T06:00:00Z",
        "outcome": "built",
    }
    kind = number % 10
    if kind < 7:
        values |= {
            "kinds": ("open", "proprietary") if kind else ("proprietary",),
            "missing": () if kind else (Missing("open", "nvidia/nv-pci.c:180: error: too few arguments to function"),),
            "built": f"2026-{number % 9 + 1:02d}-{number % 28 + 1:02d}T{number % 17 + 7:02d}:30:00Z",
            "bytes": Bytes(380_000_000 + number * 1000, 40_000_000 + number * 3000),
            "seconds": Seconds(143.0, 12.0),
            "digest": f"sha256:{number:064x}",
            "tags": (f"{kernel}-{driver}",),
        }
    elif kind == 7:
        values |= {"outcome": "failed", "reason": "nvidia-drm/nvidia-drm-drv.c:81:10: fatal error: drm/drm_ioctl.h: No such file"}
    elif kind == 8:
        values |= {
            "outcome": "excluded",
            "reason": "does not compile: pci_resize_resource() takes 4 arguments there",
            "lift": "a patch for it",
            "see": "https://github.com/gardenlinux/gardenlinux-nvidia-installer/issues/344",
            "rule": "535-pci",
        }
    else:
        values |= {"outcome": "pending", "reason": "not built yet"}
    return Entry(**values)


def many(pairs: int = 2000) -> Index:
    """``pairs`` entries over three systems and eight drivers."""
    entries = []
    for number in range(pairs):
        row, column = divmod(number, len(DRIVERS))
        os = ("debian", "fedora-coreos", "flatcar")[row % 3]
        kernel = {
            "debian": f"6.1.0-{row}-cloud-amd64",
            "flatcar": f"6.12.{row}-flatcar",
            "fedora-coreos": f"6.17.{row}-300.fc43.x86_64",
        }[os]
        releases = ({"channel": "stable", "version": f"43{row:02d}.2.1"}, {"channel": "lts", "version": f"40{row:02d}.3.0"})
        entries.append(entry(os, kernel, DRIVERS[column], number, releases[: 1 + row % 2]))
    return Index(serial=42, generated="2026-11-24T12:00:00Z", pairs=tuple(entries))
