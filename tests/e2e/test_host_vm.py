"""A whole host in a virtual machine: real units, real kernels, podman and docker, a real registry.

There is no GPU in it, so ``NVIDIA_DRIVER_TRY=1`` lets the loader try: the real ``nvidia.ko`` of the running kernel answers
ENODEV ("No such device"), which proves that image, kernel, unit and container fit together. Status 10 is the expected end. Where
a driver has to be loaded, the image holds stand-ins for the modules (``tests/standins/loaded_driver.py``).

The images are those of tests/support/pairs.py.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from pipeline.outcomes.index import Entry
from pipeline.registry.client import Registry
from tests import host_vm
from tests.host_machine import KERNEL, NEXT, A
from tests.host_site import Site
from tests.host_vm import GATEWAY, Disk, Vm, steps
from tests.standins import loaded_driver

pytestmark = host_vm.MARKS

SAID = "said; nvidia-driver-host status"
TAGS = [f"{KERNEL}-{A}", f"{A}-{KERNEL}-debian12"]


@pytest.mark.parametrize("runtime", ["podman", pytest.param("docker", marks=pytest.mark.full)])
def test_a_boot_pulls_the_image_and_tries_its_modules_and_an_upgrade_needs_no_registry(
    installed: Disk, images: Registry, site: Site, tmp_path: Path, runtime: str
) -> None:
    digests = {kernel: site.push(images, f"{kernel}-{A}", [f"{kernel}-{A}"]) for kernel in (KERNEL, NEXT)}
    vm = Vm(installed, tmp_path / "vm", **site.settings(DRIVER_RUNTIME=runtime))
    said = vm.boot(f"{SAID}; nvidia-driver-host prefetch; nvidia-driver-host may-reboot; nvidia-driver-host status --json")
    assert re.search(rf"loading (open|proprietary) modules of {re.escape(A)} for {KERNEL}", said)
    assert "No such device" in said
    assert "unit: active exited status 10" in said
    assert f"for {NEXT}: {A} is here ({digests[NEXT]}" in said
    assert f"free: the image for {NEXT} is here ({A})" in said
    assert f'"image": "{digests[KERNEL]}"' in said
    started = time.monotonic()
    said = vm.boot(SAID, kernel=NEXT, network=False)
    assert re.search(rf"loading (open|proprietary) modules of {re.escape(A)} for {NEXT}", said)
    assert "No such device" in said
    assert f"{A} here, {digests[NEXT]}" in said
    assert time.monotonic() - started < host_vm.LONGEST


@pytest.mark.full
def test_without_an_image_the_console_says_why_and_an_uninstallation_leaves_nothing(
    bare_disk: Disk, site: Site, tmp_path: Path
) -> None:
    disk, said = host_vm.install(bare_disk, tmp_path / "install")
    install = steps(said)
    assert re.search(r"\b[1-9]\d* file\(s\) changed", install["first"])
    assert "install.sh: 0 file(s) changed" in install["second"], "installing again changes nothing"
    failed = Entry(
        os="debian",
        arch="amd64",
        kernel=KERNEL,
        driver=A,
        outcome="failed",
        reason="too few arguments",
        see="https://a.example/1",
    )
    site.publish_index(failed)
    vm = Vm(disk, tmp_path / "vm", **site.settings())
    script = "step boot; said; echo multi-user $(systemctl is-active multi-user.target)\n"
    script += f"step gone; nvidia-driver-host uninstall; {host_vm.LISTED}"
    said = vm.boot(script)
    reason = f"no image for kernel {KERNEL} and driver {A}: failed: too few arguments (https://a.example/1)"
    assert reason in vm.console[: vm.console.index("=== boot")], "on the console, without anybody asking"
    assert "set DRIVER_FALLBACK or another DRIVER_VERSION" in vm.console
    done = steps(said)
    assert "unit: activating auto-restart status 30" in done["boot"]
    assert "multi-user active" in done["boot"]
    before, after = (set(re.findall(r"^(?:etc|usr|opt)/\S+$", text, re.MULTILINE)) for text in (install["before"], done["gone"]))
    assert "taken away" in done["gone"]
    engines = ("etc/docker/", "etc/containers/", "etc/cni/")  # what these write themselves is theirs
    left = {path for path in after - before if not path.startswith(engines)}
    assert left == {"etc/nvidia-driver/driver.env"}, "and the settings are the administrator's"


@pytest.mark.full
def test_a_registry_that_is_down_is_asked_again_and_a_silent_one_is_not_waited_for_without_end(
    installed: Disk, images: Registry, site: Site, standins: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    digest = site.push(images, TAGS[0], TAGS, files=loaded_driver.image_files(KERNEL, A, standins[A]))
    site.wire.set("refusing")
    vm = Vm(installed, tmp_path / "vm", **site.settings())
    proxy = f"http://{GATEWAY}:{site.wire.port}"
    script = """
    step down; end=$(($(uptime) + 300))
    until state | grep -q ^activating || [ $(uptime) -gt $end ]; do sleep 1; done; echo "unit $(state)"
    asked() { journalctl -b -o cat -u nvidia-driver.service | grep -c 'asking again'; }
    until [ "$(asked)" -ge 2 ] || [ $(uptime) -gt $end ]; do sleep 1; done
    tell up; rest; step up; said
    step silence; systemctl stop nvidia-driver.service; podman rmi -af > /dev/null; rm /var/lib/nvidia-driver/pins/*
    setting DRIVER_BOOT_DEADLINE 5; tell silence; begun=$(uptime); again; echo "took $(($(uptime) - begun)) s"
    step proxy; tell up; setting DRIVER_REGISTRY http://registry.test; setting HTTP_PROXY PROXY; again
    """
    done = steps(vm.boot(script.replace("PROXY; ", f"{proxy}; "), waits=False, control=site.control))
    assert re.search(r"unit activating start\b", done["down"]), "the boot has gone on while the unit waits"
    assert re.search(r"connection refused; asking again in 5 s \(\d+ s left\)", done["up"])
    assert re.search(r"connection refused; asking again in 10 s \(\d+ s left\)", done["up"])
    assert f"driver {A} is loaded on {KERNEL} ({digest})" in done["up"]
    assert "unit: active exited status 0" in done["up"]
    assert "took more than 30 s" in done["silence"]
    assert "unit: activating auto-restart status 31" in done["silence"]
    taken = re.search(r"took (\d+) s", done["silence"])
    assert taken
    assert int(taken[1]) < 150
    assert f"driver {A} is loaded on {KERNEL} ({digest})" in done["proxy"], "from a registry that only the proxy knows"


@pytest.mark.full
def test_the_full_image_fills_the_volume_whose_tools_run_before_any_module_is_loaded(
    installed: Disk, images: Registry, tmp_path: Path
) -> None:
    place = f"{GATEWAY}:{images.host.rpartition(':')[2]}/{images.repository}".removesuffix("/driver")
    settings = {"DRIVER_REGISTRY": f"http://{place}", "DRIVER_VERSION": A, "DRIVER_INSECURE": "1", "NVIDIA_DRIVER_TRY": "1"}
    vm = Vm(installed, tmp_path / "vm", **settings)
    script = f"""
    step volume; end=$(($(uptime) + 1500))
    until ! systemctl show -P ActiveState nvidia-driver.service | grep -q activating || [ $(uptime) -gt $end ]; do sleep 2; done
    said; cat $VOLUMES/{A}/.complete; ls $VOLUMES/{A}; ls $VOLUMES/{A}/lib64
    step tool; $VOLUMES/{A}/host-bin/nvidia-smi; echo ended $?
    step container; image=$(podman images -q | head -n 1)
    podman run --rm --volume $VOLUMES/{A}:/usr/local/nvidia:ro --entrypoint ls $image /usr/local/nvidia/bin/nvidia-smi
    """
    done = steps(vm.boot("VOLUMES=/var/lib/nvidia-docker/volumes/nvidia_driver" + script, waits=False))
    assert "filled the volume" in done["volume"]
    assert f"\n{A}\n" in done["volume"], "the stamp"
    assert {"bin", "lib", "lib64", "host-bin", "glibc"} <= set(done["volume"].split())
    assert {"libcuda.so", "libcuda.so.1", f"libcuda.so.{A}", "libnvidia-ml.so.1"} <= set(done["volume"].split())
    assert "No such device" in done["volume"]
    assert "unit: active exited status 10" in done["volume"]
    assert "couldn't communicate with the NVIDIA driver" in done["tool"], "it runs, by the volume's own loader"
    assert "/usr/local/nvidia/bin/nvidia-smi" in done["container"]
