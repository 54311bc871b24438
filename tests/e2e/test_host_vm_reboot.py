"""Before a reboot into another kernel, on a whole host in a virtual machine: GRUB chooses, zincati asks at a real socket."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pipeline.hosts import host_bundle
from pipeline.hosts.host_bundle import HostSettings
from pipeline.registry.client import Registry
from tests import host_vm
from tests.host_machine import KERNEL, NEXT, A
from tests.host_site import Site
from tests.host_vm import ROOT, Disk, Vm, steps
from tests.standins import loaded_driver

pytestmark = [*host_vm.MARKS, pytest.mark.full]

# What a host runs that must not start before the driver is there; a kubelet looks for GPUs once.
KUBELET = b"""[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'echo "kubelet found $(cat /sys/module/nvidia/version)" > /run/kubelet'
[Install]
WantedBy=multi-user.target
"""
PREFETCH = "systemctl start nvidia-driver-prefetch.service; systemctl show -P Result nvidia-driver-prefetch.service"
PREFETCHED = (
    "journalctl --no-pager -o cat _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID nvidia-driver-prefetch.service)"
)
CHECKSUM = "a" * 64
# zincati as C7 of the contracts has it: its address from its own file, its id from the machine's, no Content-Type for JSON.
ZINCATI = r"""
base=$(sed -n 's/^base_url = "\(.*\)"/\1/p' /etc/zincati/config.d/60-nvidia-driver.toml)
id=$(systemd-id128 machine-id -a de35106b6ec24688b63afddaa156679b | tr -d -)
body="{\"client_params\": {\"id\": \"$id\", \"group\": \"default\"}}"
ask() {
    code=$(curl -s --max-time 120 -o /tmp/answer -w '%{http_code}' -H 'fleet-lock-protocol: true' -H Content-Type: \
        --data "$body" "${base}v1/$1")
    echo "$1: $code $(cat /tmp/answer)"
}
"""


def test_zincati_waits_at_the_socket_until_the_staged_kernels_image_is_here(
    installed: Disk, images: Registry, site: Site, standins: dict[str, dict[str, bytes]], shared: Path, tmp_path: Path
) -> None:
    site.push(images, f"{KERNEL}-{A}", [f"{KERNEL}-{A}"], files=loaded_driver.image_files(KERNEL, A, standins[A]))
    site.words["publish"] = lambda: site.push(images, f"{NEXT}-{A}", [f"{A}-{NEXT}-fedora43"])
    document = json.loads((shared / "upstream/fcos/cincinnati/rpm-ostree-status.json").read_text())
    booted = document["deployments"][0]
    staged = {**booted, "booted": False, "staged": True, "checksum": CHECKSUM, "finalization-locked": True}
    document["deployments"] = [staged, {**booted, "booted": True}]
    deployment = f"ostree/deploy/{booted['osname']}/deploy/{CHECKSUM}.{booted['serial']}/usr/lib"
    bundle = host_bundle.bundle(ROOT / "host", "fedora-coreos", "podman", HostSettings(registry="unset.example", driver=A))
    installer = host_bundle.installer(bundle, (ROOT / "host/templates/install.sh").read_text())
    files = {
        "case/install.sh": (0o755, installer.encode()),
        "case/ostree.json": (0o644, json.dumps(document).encode()),
        "usr/local/bin/rpm-ostree": (0o755, b'#!/bin/sh\n[ "$*" != "status --json" ] || cat /case/ostree.json\n'),
        f"{deployment}/modules/{NEXT}/vmlinuz": (0o644, b"a kernel"),
        f"{deployment}/os-release": (0o644, b"ID=fedora\nVERSION_ID=43\n"),
    }
    script = f"""
    printf 'ID=fedora\\nVERSION_ID=43\\nVARIANT_ID=coreos\\n' > /tmp/os-release
    mount --bind /tmp/os-release /usr/lib/os-release
    systemctl stop nvidia-driver.service
    step install; sh /case/install.sh; echo ended $?; said
    systemctl stop nvidia-driver-prefetch.timer nvidia-driver-prefetch.path
    {ZINCATI}
    step ask; ask steady-state; ask pre-reboot; ss -Hltn 'sport = 9510'; nvidia-driver-host status
    step ask-again; tell publish; end=$(($(uptime) + 150))
    # zincati asks every five minutes; this one every few seconds.
    until ask pre-reboot | grep ' 200 ' || [ $(uptime) -gt $end ]; do sleep 3; done
    step after; ask steady-state; nvidia-driver-host may-reboot
    """
    done = steps(Vm(installed, tmp_path / "vm", **site.settings()).boot(script, files=files, control=site.control))
    assert "ended 0" in done["install"]
    assert f"driver {A} is loaded on {KERNEL}" in done["install"]
    assert "steady-state: 200 {}" in done["ask"]
    refusal = re.search(r"^pre-reboot: 423 (\{.*\})$", done["ask"], re.MULTILINE)
    assert refusal
    answer = json.loads(refusal[1])
    assert answer["kind"] == "driver_image_missing"
    assert answer["value"].startswith(f"the image for the next kernel {NEXT} is missing: ")
    assert re.search(r"127\.0\.0\.1:9510 ", done["ask"]), "on loopback alone"
    assert not re.search(r"0\.0\.0\.0:9510|\[::\]:9510", done["ask"])
    assert "reboot  held since" in done["ask"]
    assert "pre-reboot: 200 {}" in done["ask-again"], "let go by itself: the refusal had the image fetched"
    assert "steady-state: 200 {}" in done["after"]
    assert f"free: the image for {NEXT} is here ({A})" in done["after"]


def test_on_debian_the_old_kernel_stays_the_boot_default_until_the_new_ones_image_is_here(
    installed: Disk, images: Registry, site: Site, standins: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    site.push(images, f"{KERNEL}-{A}", [f"{KERNEL}-{A}"], files=loaded_driver.image_files(KERNEL, A, standins[A]))
    site.words["publish"] = lambda: site.push(images, f"{NEXT}-{A}", [f"{NEXT}-{A}"])
    vm = Vm(installed, tmp_path / "vm", **site.settings())
    # The package of NEXT is installed; the hook is called as dpkg calls it.
    script = f"""
    systemctl enable kubelet.service 2> /dev/null
    step installed; /etc/kernel/postinst.d/zz-nvidia-driver {NEXT} /boot/vmlinuz-{NEXT}; end=$(($(uptime) + 120))
    until [ -e /var/lib/nvidia-driver/hold/boot-default ] || [ $(uptime) -gt $end ]; do sleep 1; done
    {PREFETCH}; journalctl -b --no-pager -o cat -u nvidia-driver-prefetch.service; grub-editenv list
    step held; nvidia-driver-host status; nvidia-driver-host may-reboot; echo may-reboot $?
    step deadline; setting DRIVER_HOLD_DEADLINE 1; {PREFETCH}; {PREFETCHED}; grub-editenv list
    step never; setting DRIVER_HOLD_DEADLINE never; {PREFETCH}; {PREFETCHED}; grub-editenv list
    """
    done = steps(vm.boot(script, files={"etc/systemd/system/kubelet.service": (0o644, KUBELET)}))
    missing = f"the image for the next kernel {NEXT} is missing: no image for kernel {NEXT} and driver {A}"
    saved = re.compile(rf"^saved_entry=gnulinux-advanced-[^>]+>gnulinux-{re.escape(KERNEL)}-advanced-\S+$", re.MULTILINE)
    assert f"a reboot starts {KERNEL} until the image for {NEXT} is here" in done["installed"]
    assert saved.search(done["installed"])
    assert re.search(rf"reboot  held since \S+, at most until \S+: {re.escape(missing)}", done["held"])
    assert "may-reboot 1" in done["held"]
    assert f"LETTING GO after 1 WITHOUT A DRIVER: {missing}" in done["deadline"]
    assert "saved_entry=0" in done["deadline"]
    assert f"without end (DRIVER_HOLD_DEADLINE=never): {missing}" in done["never"]
    assert saved.search(done["never"])
    script = f"""
    step rebooted; uname -r; said; cat /run/kubelet; nvidia-driver-host may-reboot
    step here; tell publish; {PREFETCH}; {PREFETCHED}; grub-editenv list; nvidia-driver-host may-reboot; echo may-reboot $?
    """
    done = steps(vm.boot(script, kernel="grub", control=site.control))
    assert f"\n{KERNEL}\n" in done["rebooted"], "the newest kernel in /boot is another"
    assert f"driver {A} is loaded on {KERNEL}" in done["rebooted"]
    assert f"kubelet found {A}" in done["rebooted"], "it was started after the driver"
    assert "held since" in done["rebooted"]
    assert "the newest kernel is the boot default again" in done["here"]
    assert "saved_entry=0" in done["here"]
    assert f"free: the image for {NEXT} is here ({A})\nmay-reboot 0" in done["here"]
    said = vm.boot("uname -r; said", kernel="grub", network=False)
    assert f"{NEXT}\n" in said
    loading = rf"loading (open|proprietary) modules of {re.escape(A)} for {NEXT}"
    assert re.search(loading, said), "offline, from the image that was fetched"
    assert "No such device" in said
