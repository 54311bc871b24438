"""What a host gets: one script, a few units, one file of settings, per OS and runtime; as Butane, as Ignition, as a shell script.

Formats: Butane ``fcos`` 1.5.0 and ``flatcar`` 1.1.0, Ignition 3.4.0 (coreos/butane docs/specs.md, coreos/ignition
docs/configuration-v3_4.md). The retired CoreOS Container Linux reads an older Ignition; its hosts run already, and take the
shell script, as Debian's do.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jinja2
from msgspec import Struct

RUNTIMES: Final[Mapping[str, tuple[str, ...]]] = {
    "fedora-coreos": ("podman", "docker"),
    "flatcar": ("docker", "podman"),
    "container-linux": ("docker",),
    "debian": ("podman", "docker"),
}
"""Runtimes by OS, the usual one first."""
VARIANTS: Final[Mapping[str, tuple[str, str]]] = {"fedora-coreos": ("fcos", "1.5.0"), "flatcar": ("flatcar", "1.1.0")}
"""Butane's variant and version by OS; both give Ignition 3.4.0."""
IGNITION_VERSION: Final = "3.4.0"
INSTALLED: Final = "/etc/nvidia-driver/installed"
SETTINGS: Final = "/etc/nvidia-driver/driver.env"
_PARTS: Final = re.compile(r"^# parts begin: .*?^# parts end\n", re.MULTILINE | re.DOTALL)
_UNITS: Final = "/etc/systemd/system"


class HostFile(Struct, frozen=True):
    """A file by its path on the host. ``keep``: one that is there already stays, for it is the administrator's."""

    path: str
    text: str
    mode: int = 0o644
    keep: bool = False


class Unit(Struct, frozen=True):
    """A unit with its text, or with a drop-in ``(name, text)`` to another's, or masked."""

    name: str
    text: str = ""
    enabled: bool = False
    drop_in: tuple[str, str] | None = None
    masked: bool = False

    @property
    def path(self) -> str:
        """Where its text lies."""
        return f"{_UNITS}/{self.name}.d/{self.drop_in[0]}" if self.drop_in else f"{_UNITS}/{self.name}"


class HostSettings(Struct, frozen=True):
    """The values of ``driver.env`` that are known when the files are made; ``key`` is the text of a public key."""

    registry: str
    driver: str
    fallback: str = ""
    key: str = ""


class Bundle(Struct, frozen=True):
    """All that one OS and runtime gets."""

    os: str
    runtime: str
    files: tuple[HostFile, ...]
    units: tuple[Unit, ...]
    kernel_arguments: tuple[str, ...] = ()

    @property
    def on_disk(self) -> tuple[HostFile, ...]:
        """Files and units alike, as they lie on the host."""
        texts = (HostFile(unit.path, unit.drop_in[1] if unit.drop_in else unit.text) for unit in self.units if not unit.masked)
        return (*self.files, *texts)


def script(host: Path) -> str:
    """``nvidia-driver-host`` with its parts written in, so that a host has one file."""
    text = (host / "nvidia-driver-host").read_text()
    names = re.search(r"for part in ([a-z ]+);", text)
    assert names is not None
    parts = []
    for name in names[1].split():
        part = (host / "lib" / f"{name}.sh").read_text()
        parts.append(part.removeprefix("# shellcheck shell=sh\n"))
    whole = "\n".join(parts)
    return _PARTS.sub(lambda _: whole, text, count=1)


def bundle(host: Path, os: str, runtime: str, settings: HostSettings) -> Bundle:
    """What a host of ``os`` with ``runtime`` gets. ``host`` is the folder of that name in the checkout."""
    bin_directory = "/opt/bin" if os in {"flatcar", "container-linux"} else "/usr/local/bin"
    units = host / "units"

    def text(name: str) -> str:
        read = (units / name).read_text().replace("@BIN@", bin_directory)
        if os == "container-linux":  # its systemd (241) knows Restart= for no oneshot (systemd NEWS, 244)
            read = re.sub(r"^(Restart|RestartSec|RestartPreventExitStatus)=.*\n", "", read, flags=re.MULTILINE)
        return read

    template = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701
    env = template.from_string((host / "templates/driver.env.j2").read_text())
    files = [
        HostFile(f"{bin_directory}/nvidia-driver-host", script(host), 0o755),
        HostFile(f"{bin_directory}/nvidia-smi", text("nvidia-smi"), 0o755),
        HostFile(SETTINGS, env.render(settings=settings, runtime=runtime), keep=True),
        HostFile("/etc/modprobe.d/nvidia-driver.conf", text("modprobe-nvidia-driver.conf")),
    ]
    if settings.key:
        files.append(HostFile("/etc/nvidia-driver/driver.pub", settings.key))
    names = (
        "nvidia-driver.service",
        "nvidia-driver-prefetch.service",
        "nvidia-driver-prefetch.timer",
        "nvidia-driver-prefetch.path",
    )
    found = [Unit(name, text(name), enabled="[Install]" in text(name)) for name in names]
    arguments: tuple[str, ...] = ()
    if os == "fedora-coreos":
        found.append(Unit("nvidia-driver-fleetlock.socket", text("nvidia-driver-fleetlock.socket"), enabled=True))
        found.append(Unit("nvidia-driver-fleetlock@.service", text("nvidia-driver-fleetlock@.service")))
        files.append(HostFile("/etc/zincati/config.d/60-nvidia-driver.toml", text("zincati-nvidia-driver.toml")))
        arguments = ("modprobe.blacklist=nouveau", "rd.driver.blacklist=nouveau")
    elif os == "debian":
        files.append(HostFile("/etc/kernel/postinst.d/zz-nvidia-driver", text("kernel-postinst-nvidia-driver"), 0o755))
        files.append(HostFile("/etc/default/grub.d/nvidia-driver.cfg", text("grub-nvidia-driver.cfg")))
    else:
        found.append(Unit("locksmithd.service", drop_in=("10-nvidia-driver.conf", text("locksmithd-nvidia-driver.conf"))))
        if os == "flatcar":
            found.append(Unit("nvidia.service", masked=True))
    made = Bundle(os, runtime, tuple(files), tuple(found), arguments)
    listed = [file.path for file in made.on_disk] + [f"mask {unit.name}" for unit in found if unit.masked]
    files.append(HostFile(INSTALLED, "\n".join(listed) + "\n"))
    return Bundle(os, runtime, tuple(files), tuple(found), arguments)


def ignition(made: Bundle) -> dict[str, Any]:
    """The Ignition configuration of a bundle."""
    files = [{"path": file.path, "mode": file.mode, "overwrite": True, "contents": _contents(file.text)} for file in made.files]
    units: list[dict[str, Any]] = []
    for unit in made.units:
        if unit.masked:
            units.append({"name": unit.name, "mask": True})
        elif unit.drop_in:
            units.append({"name": unit.name, "dropins": [{"name": unit.drop_in[0], "contents": unit.drop_in[1]}]})
        else:
            units.append({"name": unit.name, "contents": unit.text, **({"enabled": True} if unit.enabled else {})})
    document: dict[str, Any] = {"ignition": {"version": IGNITION_VERSION}}
    if made.kernel_arguments:
        document["kernelArguments"] = {"shouldExist": list(made.kernel_arguments)}
    return document | {"storage": {"files": files}, "systemd": {"units": units}}


def _contents(text: str) -> dict[str, Any]:
    data = text.encode()
    source = f"data:;base64,{base64.b64encode(data).decode()}"
    return {"source": source, "verification": {"hash": f"sha512-{hashlib.sha512(data).hexdigest()}"}}


def butane(made: Bundle) -> str:
    """The Butane configuration that gives ``ignition(made)``; its files lie below ``--files-dir`` by their paths."""
    variant, version = VARIANTS[made.os]
    lines = [f"# butane --strict --files-dir files config.bu > config.ign ({made.os}, {made.runtime})", f"variant: {variant}"]
    lines.append(f"version: {version}")
    if made.kernel_arguments:
        lines += ["kernel_arguments:", "  should_exist:", *(f"    - {argument}" for argument in made.kernel_arguments)]
    lines += ["storage:", "  files:"]
    for file in made.files:
        lines += [f"    - path: {file.path}", f"      mode: {file.mode:04o}", "      overwrite: true"]
        lines.append(f"      contents: {{local: {file.path[1:]}}}")
    lines += ["systemd:", "  units:"]
    for unit in made.units:
        lines.append(f"    - name: {json.dumps(unit.name)}")
        if unit.masked:
            lines.append("      mask: true")
        elif unit.drop_in:
            lines += ["      dropins:", f"        - name: {unit.drop_in[0]}", f"          contents_local: {unit.path[1:]}"]
        else:
            lines += ["      enabled: true"] if unit.enabled else []
            lines.append(f"      contents_local: {json.dumps(unit.path[1:])}")
    return "\n".join(lines) + "\n"


def installer(made: Bundle, template: str) -> str:
    """The shell script that does on a running host what Ignition does on a new one; it may run again and again."""
    enabled = [unit.name for unit in made.units if unit.enabled]
    blocks = []
    for file in made.on_disk:
        mark = "END_" + hashlib.sha256(file.text.encode()).hexdigest()[:16]
        blocks.append(
            f"put {shlex.quote(file.path)} {file.mode:04o}{' keep' if file.keep else ''} << '{mark}'\n{file.text}{mark}\n"
        )
    values = {
        "@OS@": made.os,
        "@FILES@": "".join(blocks),
        "@ENABLED@": " ".join(enabled),
        "@MASKED@": " ".join(unit.name for unit in made.units if unit.masked),
        "@SCRIPT@": made.files[0].path,
        "@ARGUMENTS@": " ".join(made.kernel_arguments),
    }
    for name, value in values.items():
        template = template.replace(name, value)
    return template
