"""Nothing that a host runs for the driver waits for ever: each program that may hang has a limit, each unit an end."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path
from typing import Final

import pytest

from tests.host_machine import ENGINE, KERNEL, NEXT, NOTED, A, B, Host
from tests.synthetic_machine import STAND_INS, Machine

UNITS: Final = sorted((Path(__file__).parents[3] / "host/units").glob("*.service"))
TELLS: Final = '[ -n "${UNDER_LIMIT:-}" ] || echo "$(basename "$0") $*" >> "$WORLD/unlimited"\n'


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host whose engines and managers tell when nobody has limited them. dash: busybox would take its own timeout."""
    made = Host(tmp_path, ["dash"])
    made.program("timeout", 'echo "$1" >> "$WORLD/limits"; shift; UNDER_LIMIT=1; export UNDER_LIMIT; exec "$@"')
    for name in ("podman", "docker"):
        made.program(name, TELLS + ENGINE)
    for name in ("systemctl", "grub-set-default", "mount", "umount"):
        made.program(name, f'{TELLS}{NOTED}\n[ "$1" != is-active ]')
    return made


@pytest.mark.parametrize("runtime", ["podman", "docker"])
def test_every_program_that_may_hang_runs_under_a_limit(host: Host, runtime: str) -> None:
    host.settings(DRIVER_RUNTIME=runtime)
    host.run("boot")
    host.stage()
    host.publish(NEXT, A)
    host.publish_index()
    for word in ("prefetch", "status", "may-reboot", "prune", "check"):
        host.run(word)
    host.publish(KERNEL, B)
    host.settings(DRIVER_VERSION=B)
    host.run("switch")
    host.run("unload")
    assert not (host.world / "unlimited").exists(), (host.world / "unlimited").read_text()
    limits = {int(line) for line in (host.world / "limits").read_text().split()}
    assert len(limits) > 3
    assert max(limits) <= 1800, "half an hour, for a pull"


def test_a_program_that_reached_its_limit_is_named(host: Host) -> None:
    host.program("timeout", '[ "$3" != run ] || exit 124; shift; exec "$@"')
    assert "'nvidia-driver volume load cdi' did not end within 1020 s" in host.run("boot", status=124)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: str(unit.name))
def test_every_unit_ends_by_itself_or_is_ended(unit: Path) -> None:
    read = ConfigParser(strict=False, interpolation=None)
    read.optionxform = str  # type: ignore[assignment, method-assign]
    read.read_string(re.sub(r"(?m)^#.*$", "", unit.read_text()))
    limits = [read["Service"].get(key) for key in ("TimeoutStartSec", "RuntimeMaxSec")]
    assert any(limits), "systemd gives a oneshot no limit of its own"
    assert "infinity" not in limits


def test_what_an_image_runs_of_nvidias_has_a_limit_too(tmp_path: Path) -> None:
    machine = Machine(tmp_path, ["dash"])
    tells = '[ -n "${UNDER_LIMIT:-}" ] || echo "$(basename "$0") $*" >> "$LOG.unlimited"\n'
    machine.program("timeout", 'shift; UNDER_LIMIT=1; export UNDER_LIMIT; exec "$@"')
    for name in ("nvidia-smi", "nvidia-persistenced"):
        machine.program(name, tells + STAND_INS[name])
    machine.environment["NVIDIA_PERSISTENCED"] = "1"
    machine.run("load")
    machine.run("status")
    machine.run("unload")
    assert any(line.startswith("nvidia-smi") for line in machine.asked("nvidia-smi"))
    assert not Path(f"{machine.log}.unlimited").exists()
