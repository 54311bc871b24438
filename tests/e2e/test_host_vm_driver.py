"""A loaded driver on a whole host in a virtual machine, with stand-ins for the kernel modules: trust, order, busy, power cuts.

The stand-ins are tiny real modules of the same names (``tests/standins/loaded_driver.py``); everything else is the real thing.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from pipeline.outcomes.index import Entry
from pipeline.registry.client import Registry
from tests import host_vm
from tests.host_machine import KERNEL, A, B, make_key
from tests.host_site import Site
from tests.host_vm import Disk, Vm, steps
from tests.standins import loaded_driver

pytestmark = [*host_vm.MARKS, pytest.mark.full]

Modules = dict[str, dict[str, bytes]]
TAGS = [f"{KERNEL}-{A}", f"{A}-{KERNEL}-debian12"]
LOADED = "echo loaded: $(sed -n 's/^\\(nvidia[^ ]*\\) .*/\\1/p' /proc/modules)"
HEARD = "dmesg | sed -n 's/.*\\(stand-in .*\\)/\\1/p'; dmesg -C"


def entry(digest: str) -> Entry:
    return Entry(os="debian", arch="amd64", kernel=KERNEL, driver=A, outcome="built", digest=digest, tags=tuple(TAGS))


def test_a_moved_tag_waits_for_a_prefetch_and_a_forged_index_loads_nothing(
    installed: Disk, images: Registry, site: Site, standins: Modules, tmp_path: Path
) -> None:
    files = loaded_driver.image_files(KERNEL, A, standins[A])
    private, public = make_key(tmp_path)
    moved: list[str] = []

    def push(note: str) -> str:
        return site.push(images, f"{KERNEL}-{A}", TAGS, files=files, note=note)

    first = push("first")
    site.words["move"] = lambda: moved.append(push("moved"))
    site.words["forge"] = lambda: site.publish_index(entry(moved[0]), serial=8, key=private, forged=True)
    site.words["sign"] = lambda: site.publish_index(entry(moved[0]), serial=9, key=private)
    site.words["play-back"] = lambda: site.publish_index(entry(first), serial=8, key=private)
    vm = Vm(installed, tmp_path / "vm", **site.settings())
    script = f"""
    step boot; said
    step moved; tell move; again
    step prefetch; nvidia-driver-host prefetch
    step next; again; nvidia-driver-host prune
    step forged; tell forge; systemctl stop nvidia-driver.service
    setting DRIVER_KEY /etc/nvidia-driver/driver.pub; again; {LOADED}
    step signed; tell sign; again; {LOADED}; nvidia-driver-host status
    step setting; systemctl start nvidia-driver-prefetch.path; setting DRIVER_VERSION 535; end=$(($(uptime) + 90))
    until [ -e /var/lib/nvidia-driver/pins/{KERNEL}-535 ] || [ $(uptime) -gt $end ]; do sleep 1; done
    systemctl stop nvidia-driver-prefetch.path; cat /var/lib/nvidia-driver/pins/{KERNEL}-535; {LOADED}
    step played-back; tell play-back; nvidia-driver-host prefetch; echo ended $?; again
    step without-a-pin; systemctl stop nvidia-driver.service; rm /var/lib/nvidia-driver/pins/* /var/lib/nvidia-driver/good/*
    systemctl start nvidia-driver.service; rest; said; {LOADED}
    """
    done = steps(vm.boot(script, control=site.control, files={"etc/nvidia-driver/driver.pub": (0o644, public.read_bytes())}))
    assert f"driver {A} is loaded on {KERNEL} ({first})" in done["boot"]
    assert f"driver {A} is loaded on {KERNEL} ({first})" in done["moved"], "the pinned digest still loads"
    told = f"moved: it was {first} ({A}), it is {moved[0]} ({A}); the new one is taken at the next boot or switch"
    assert told in done["prefetch"]
    assert f"driver {A} is loaded on {KERNEL} ({moved[0]})" in done["next"]
    assert f"removed driver:{KERNEL}-{A}, which no kept kernel loads" in done["next"], "the first is of no more use"
    assert "index is not signed by /etc/nvidia-driver/driver.pub" in done["forged"]
    assert "status 32" in done["forged"]
    assert "loaded:\n" in done["forged"], "nothing is"
    assert f"driver {A} is loaded on {KERNEL} ({moved[0]})" in done["signed"]
    assert "from the signed index" in done["signed"]
    assert "serial 9" in done["signed"]
    assert f"{moved[0]} signed {A}" in done["setting"], "fetched at once"
    assert "loaded: nvidia" in done["setting"], "and what runs goes on"
    refused = "has serial 8 and 9 was seen before: an old index is played back; nothing is taken from it"
    assert refused in done["played-back"]
    assert "ended 32" in done["played-back"]
    assert f"is loaded on {KERNEL} ({moved[0]})" in done["played-back"], "what was signed before loads without a registry"
    assert refused in done["without-a-pin"]
    assert "status 32" in done["without-a-pin"]
    assert "loaded:\n" in done["without-a-pin"]


def test_modules_come_in_order_and_go_where_nothing_uses_them(
    installed: Disk, images: Registry, site: Site, standins: Modules, tmp_path: Path
) -> None:
    files = loaded_driver.image_files(KERNEL, A, standins[A])
    digest = site.push(images, TAGS[0], TAGS, files=files)
    broken = files | {f"opt/lib/modules/{KERNEL}/nvidia-modeset.ko": standins[A]["nvidia-modeset"][:4000]}
    other = loaded_driver.image_files(KERNEL, B, standins[B])
    site.words["publish-b"] = lambda: site.push(images, TAGS[0], [f"{KERNEL}-{B}"], files=other, driver=B)
    site.words["break"] = lambda: site.push(images, TAGS[0], TAGS, files=broken)
    vm = Vm(installed, tmp_path / "vm", **site.settings(DRIVER_RUNTIME="docker"))
    script = f"""
    step boot; said; {HEARD}; ls -l /dev/nvidia* | sed 's/  */ /g'
    step again; nvidia-driver-host boot; {HEARD}
    step busy; sleep 600 < /dev/nvidiactl & holder=$!; sleep 1
    systemctl stop nvidia-driver.service; echo holder $holder; said; {LOADED}
    step stop; kill $holder; wait $holder; systemctl start nvidia-driver.service; dmesg -C
    systemctl stop nvidia-driver.service; said; {HEARD}; {LOADED}
    step switch; systemctl start nvidia-driver.service; tell publish-b; setting DRIVER_VERSION {B}
    sleep 600 < /dev/nvidiactl & holder=$!; sleep 1; nvidia-driver-host switch; echo ended $?; cat /sys/module/nvidia/version
    kill $holder; wait $holder; nvidia-driver-host switch; echo ended $?; cat /sys/module/nvidia/version
    setting DRIVER_VERSION {A}; nvidia-driver-host switch; systemctl stop nvidia-driver.service; {LOADED}
    step other; insmod /case/other.ko; systemctl start nvidia-driver.service; rest; said; {LOADED}; cat /sys/module/nvidia/version
    step half; rmmod nvidia; insmod /case/nvidia.ko; insmod /case/nvidia-uvm.ko; dmesg -C
    systemctl start nvidia-driver.service; rest; said; {HEARD}; {LOADED}
    step refused; systemctl stop nvidia-driver.service; echo options nvidia-modeset refuse=1 > /etc/nvidia-driver/modules.conf
    dmesg -C; systemctl start nvidia-driver.service; rest; said; {HEARD}; {LOADED}
    step previous; rm /etc/nvidia-driver/modules.conf; tell break; nvidia-driver-host prefetch; again; {LOADED}
    """
    own = {f"case/{name}.ko": (0o644, standins[A][name]) for name in ("nvidia", "nvidia-uvm")}
    done = steps(vm.boot(script, control=site.control, files={**own, "case/other.ko": (0o644, standins[B]["nvidia"])}))
    up = [f"stand-in {name} {A} comes up" for name in loaded_driver.MODULES]
    assert heard(done["boot"]) == up, "each after what it is built on"
    assert "unit: active exited status 0" in done["boot"]
    assert re.search(r"^crw-rw-rw- .* 195, 255 .* /dev/nvidiactl$", done["boot"], re.MULTILINE)
    assert "is already loaded; nothing is reloaded" in done["again"]
    assert heard(done["again"]) == []
    holder = re.search(r"holder (\d+)", done["busy"])
    assert holder
    assert f"processes with an NVIDIA device open: {holder[1]} (sleep); stop them first" in done["busy"]
    assert "unit: failed" in done["busy"]
    assert "loaded: nvidia_modeset nvidia_uvm nvidia" in done["busy"]
    assert heard(done["stop"]) == [f"stand-in {name} is gone" for name in reversed(loaded_driver.MODULES)]
    assert "loaded:\n" in done["stop"]
    assert re.search(
        rf"driver {A} stays: .* \(sleep\); stop them first; the new one is taken at the next boot\nended 13\n{A}\n",
        done["switch"],
    )
    assert f"ended 0\n{B}\n" in done["switch"]
    assert "loaded:\n" in done["switch"]
    assert f"NVIDIA driver {B} is loaded, this image is {A}" in done["other"]
    assert "unit: failed failed status 12" in done["other"], "and it is not tried again"
    assert done["other"].rstrip().endswith(B), "what was loaded stays"
    assert "removing what an earlier try left loaded: nvidia nvidia-uvm" in done["half"]
    gone = [f"stand-in {name} is gone" for name in ("nvidia-uvm", "nvidia")]
    assert heard(done["half"]) == gone + up
    assert "loaded: nvidia_modeset nvidia_uvm nvidia" in done["half"]
    assert "status 16" in done["refused"]
    assert "nvidia-modeset.ko (proprietary) was refused" in done["refused"]
    assert "removed again: nvidia-uvm nvidia" in done["refused"]
    assert heard(done["refused"]) == up + gone
    assert "loaded:\n" in done["refused"], "all or nothing"
    assert f"loading what worked last on {KERNEL}: {A} ({digest})" in done["previous"]
    assert "unit: active exited status 0" in done["previous"]
    assert "loaded: nvidia_modeset nvidia_uvm nvidia" in done["previous"]


def heard(text: str) -> list[str]:
    """What the stand-ins said in the kernel's log, in order."""
    return re.findall(r"^stand-in .*$", text, re.MULTILINE)


@pytest.mark.parametrize("runtime", ["podman", pytest.param("docker", marks=pytest.mark.full)])
def test_a_power_cut_in_mid_pull_and_one_in_mid_load_need_no_hand(
    installed: Disk, images: Registry, site: Site, standins: Modules, tmp_path: Path, runtime: str
) -> None:
    digest = site.push(images, TAGS[0], TAGS, files=loaded_driver.image_files(KERNEL, A, standins[A]))
    vm = Vm(installed, tmp_path / "vm", **site.settings(DRIVER_RUNTIME=runtime))
    slow, plain = b"options nvidia-uvm delay=600\n", b"# nothing\n"
    site.wire.dies_after(4_000_000)  # the base layer has 7 MB

    def in_mid_pull(_: str) -> bool:
        if not site.wire.stuck.is_set():
            return False
        time.sleep(1)  # what came is on its way to the disk
        return True

    console = vm.cut("sleep 800", until=in_mid_pull, waits=False)
    assert "nvidia-driver-host: driver" not in console
    site.wire.dies_after(None)
    coming = f"stand-in nvidia-uvm {A} comes up"
    vm.cut("sleep 800", until=lambda text: coming in text, files={"etc/nvidia-driver/modules.conf": (0o644, slow)}, waits=False)
    said = vm.boot(
        f"said; {LOADED}; docker ps -a 2> /dev/null; podman ps -a", files={"etc/nvidia-driver/modules.conf": (0o644, plain)}
    )
    assert f"driver {A} is loaded on {KERNEL} ({digest})" in said
    assert "unit: active exited status 0" in said
    assert "loaded: nvidia_modeset nvidia_uvm nvidia" in said
    assert "nvidia-driver-host" not in said.partition("CONTAINER ID")[2], "no container is left of the boots that were cut"
