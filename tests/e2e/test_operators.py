"""GPU Operator and Kernel Module Management take the pushed image as it is: what they rely on, written from their own sources.

GPU Operator: NVIDIA/gpu-operator, internal/state/nodepool.go and assets/state-driver. KMM:
kubernetes-sigs/kernel-module-management, docs/mkdocs/documentation/kmod_image.md. The image is the one that was built with every
module and both kinds, pulled by podman; its ``nvidia-driver init`` runs in a privileged container with the operator's mounts.
There insmod, rmmod and modprobe are stand-ins over a synthetic /sys (tests/gpu_box.py); locks, nodes, mounts, files are real.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.checkout import DRIVER, KERNEL
from tests.clients import PODMAN_RUN, Client
from tests.gpu_box import GpuBox
from tests.support.pairs import Made

pytestmark = [pytest.mark.e2e, pytest.mark.full, pytest.mark.area("host")]

ALL = ["nvidia", "nvidia-drm", "nvidia-modeset", "nvidia-peermem", "nvidia-uvm"]


@pytest.fixture(scope="module")
def shell(podman: Client, full_image: str) -> tuple[str, ...]:
    """Words that run a script in the image."""
    podman("pull", "--quiet", "--tls-verify=false", full_image)
    return (*PODMAN_RUN, "--entrypoint", "/bin/sh", full_image, "-c")


# GPU Operator


def operator_tag(driver: str, kernel: str, os_release: str) -> str:
    """The tag that the operator asks for (internal/state/nodepool.go, getOSTag; the major version only for ol, rocky, rhel)."""
    values = dict(line.split("=", 1) for line in os_release.splitlines())
    name, version = values["ID"].strip('"'), values["VERSION_ID"].strip('"')
    return f"{driver}-{kernel}-{name}{version.split('.')[0] if name in ('ol', 'rocky', 'rhel') else version}"


@pytest.mark.parametrize("version", [DRIVER, DRIVER.split(".")[0]])
def test_the_tags_that_the_operator_makes_up_name_the_image(version: str, full: Made) -> None:
    tag = operator_tag(version, KERNEL, 'ID=debian\nVERSION_ID="12"')
    assert full.tags[tag] == full.tags[f"{KERNEL}-{DRIVER}"]


def test_the_words_of_its_containers_are_commands_of_the_image(podman: Client, shell: tuple[str, ...]) -> None:
    said = podman(*shell, "command -v sh nvidia-smi nvidia-driver; nvidia-driver help")
    assert "/nvidia-driver" in said
    for word in ("init", "reload_nvidia_peermem", "probe_nvidia_peermem"):
        assert re.search(rf"nvidia-driver .*\b{word}\b|\| {word}\b", said), word


def test_the_validator_finds_its_library_and_tool_under_the_driver_root(podman: Client, shell: tuple[str, ...]) -> None:
    libraries = ("/", "/usr/lib64", "/lib64", "/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu")
    tools = ("/usr/bin", "/usr/sbin", "/bin", "/sbin")
    script = "for d in {}; do test ! -e $d/{} || echo $d; done"
    assert "/usr/lib64" in podman(*shell, script.format(" ".join(libraries), "libnvidia-ml.so.1")).split()
    assert "/usr/bin" in podman(*shell, script.format(" ".join(tools), "nvidia-smi")).split()
    links = podman(*shell, "readlink /usr/bin/nvidia-smi; readlink /usr/lib64/libnvidia-ml.so.1").split()
    assert len(links) == 2
    assert not [link for link in links if link.startswith("/")], "a link that holds under any root"


# The operator shares the host's processes as well; without cgroups podman cannot, and /proc is synthetic here.
OPERATOR = ("--privileged", "--env=PATH=/box/bin:/usr/local/nvidia/bin:/usr/sbin:/usr/bin:/sbin:/bin")
INIT = r"""
{podman} {run} --name operator {words} {image} init > "$BOX/said" 2>&1 &
until grep -q ^Ready run/nvidia/validations/.driver-daemons-status 2> /dev/null; do
  [ "$((n += 1))" -le 6000 ] || {{ cat "$BOX/said"; exit 1; }}
  kill -0 $! || {{ cat "$BOX/said"; exit 1; }}
  sleep 0.1
done
r=/run/nvidia/driver
ls -l $r/usr/bin/nvidia-smi $r/usr/lib64/libnvidia-ml.so.1 $r/usr/local/nvidia/bin/nvidia-smi > "$BOX/seen"
cat run/nvidia/nvidia-driver.state > "$BOX/state"
cat run/nvidia/nvidia-driver.pid > "$BOX/pid"
ls sys/module > "$BOX/loaded"
stat -c '%n %t:%T %a' dev/nvidia* > "$BOX/nodes"
find lib-firmware -name 'gsp*' > "$BOX/firmware"
touch run/nvidia/validations/.driver-ctr-ready
{podman} kill --signal TERM operator > /dev/null
status=0; wait $! || status=$?
echo "$status"
ls -A run/nvidia run/nvidia/validations; mount | grep nvidia >> "$BOX/said"; mount | grep -c "$r " || :
"""


@pytest.fixture(scope="module")
def initiated(podman: Client, full_image: str, shell: tuple[str, ...], room: Path) -> tuple[GpuBox, str]:
    """``nvidia-driver init`` as the operator's DaemonSet runs it, from its start to its end on SIGTERM."""
    assert shell
    box = GpuBox(room / "operator-box", KERNEL, DRIVER)
    (box.folder / "lib-firmware").mkdir()
    box.write("host-modules/i2c-core", "x")
    box.write(f"host/lib/modules/{KERNEL}/modules.builtin", "kernel/drivers/i2c/i2c-core.ko")
    mounts = ["/run/nvidia:/run/nvidia:rshared", f"{box.folder}/lib-firmware:/lib/firmware", f"{box.folder}:/box"]
    values = {
        "SYSFS": "/box/sys", "PROC": "/box/proc", "DEV": "/box/dev", "HOST_ROOT": "/box/host", "LOG": "/box/log",
        "REFUSE": "/box/refuse", "HOST_MODULES": "/box/host-modules",
        "DRIVER_CONFIG_DIGEST": "4711", "KERNEL_MODULE_TYPE": "auto",
    }  # fmt: skip
    words = [*OPERATOR, *(f"--env={name}={value}" for name, value in values.items()), *(f"--volume={m}" for m in mounts)]
    script = INIT.format(podman=shlex.join(podman.words), run=shlex.join(PODMAN_RUN), words=shlex.join(words), image=full_image)
    return box, box.run(script)


def read(box: GpuBox, name: str) -> str:
    return (box.folder / name).read_text()


def test_init_loads_in_order_and_says_ready_where_the_operator_looks(initiated: tuple[GpuBox, str]) -> None:
    box, _ = initiated
    inserted = [line.split()[1] for line in read(box, "log").splitlines() if line.startswith("insmod ")]
    assert inserted[0] == "nvidia"
    assert set(inserted) == {"nvidia", "nvidia-uvm", "nvidia-modeset", "nvidia-drm"}
    assert {"nvidia", "nvidia_uvm"} <= set(read(box, "loaded").split())
    assert read(box, "state") == "4711", "the operator compares the digest of its configuration"
    assert read(box, "pid").strip().isdigit()


def test_init_shows_the_driver_root_to_the_host(initiated: tuple[GpuBox, str]) -> None:
    assert read(initiated[0], "seen").count("/run/nvidia/driver/") == 3


def test_init_puts_firmware_where_the_operator_mounts_it_and_makes_the_nodes(initiated: tuple[GpuBox, str]) -> None:
    box, _ = initiated
    assert f"lib-firmware/nvidia/{DRIVER}/gsp_ga10x.bin" in read(box, "firmware")
    assert read(box, "sys/module/firmware_class/parameters/path") == "/run/nvidia/driver/lib/firmware"
    assert {"dev/nvidia0 c3:0 666", "dev/nvidia1 c3:1 666", "dev/nvidiactl c3:ff 666"} <= set(read(box, "nodes").splitlines())


def test_on_sigterm_init_unloads_unmounts_and_takes_its_files_back(initiated: tuple[GpuBox, str]) -> None:
    box, after = initiated
    lines = after.splitlines()
    assert lines[0] == "0"
    assert lines[-1] == "0", "nothing is mounted at the driver root"
    assert {".driver-ctr-ready", "nvidia-driver.state", "nvidia-driver.pid"}.isdisjoint(lines)
    removed = [line.split()[1] for line in read(box, "log").splitlines() if line.startswith("rmmod ")]
    assert removed[-1] == "nvidia"
    assert not [name for name in (path.name for path in (box.folder / "sys/module").iterdir()) if name.startswith("nvidia")]


# Kernel Module Management


def kmm_image(template: str, kernel: str) -> str:
    """``containerImage`` of a kernel mapping with KMM's variables filled in (internal/utils/replaceStrings.go)."""
    x, y, z = re.split(r"[.,-]", kernel)[:3]
    values = {"KERNEL_FULL_VERSION": kernel, "KERNEL_VERSION": kernel, "KERNEL_XYZ": f"{x}.{y}.{z}"}
    values |= {"KERNEL_X": x, "KERNEL_Y": y, "KERNEL_Z": z}
    return re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], template)


def test_a_kernel_mapping_names_the_image_by_kmms_own_variables(full: Made) -> None:
    assert kmm_image(f"${{KERNEL_FULL_VERSION}}-{DRIVER}", KERNEL) in full.tags
    assert kmm_image("${KERNEL_FULL_VERSION}-535", KERNEL) in full.tags
    assert kmm_image("${KERNEL_XYZ}", KERNEL) == "6.1.0"


@pytest.mark.parametrize("root", ["/opt", "/opt/open"])
def test_kmm_finds_modules_depmods_files_and_the_hosts_tree_below_its_prefix(
    podman: Client, shell: tuple[str, ...], root: str
) -> None:
    place = f"{root}/lib/modules/{KERNEL}"
    said = podman(*shell, f"cd {place}; ls; readlink host; command -v cp")
    words = said.split()
    assert [f"{name}.ko" for name in ALL if f"{name}.ko" not in words] == []
    assert {"modules.dep", "modules.dep.bin", "modules.order", f"/host/lib/modules/{KERNEL}"} <= set(words)
    assert words[-1].endswith("/cp"), "KMM copies the firmware with it"


def test_modprobe_below_the_prefix_loads_in_the_order_that_kmm_expects(podman: Client, shell: tuple[str, ...]) -> None:
    for above in ("nvidia-modeset", "nvidia-uvm"):
        said = podman(*shell, f"modprobe -d /opt -S {KERNEL} --show-depends {above}")
        order = re.findall(rf"insmod /opt/lib/modules/{re.escape(KERNEL)}/(\S+)\.ko", said)
        assert order == ["nvidia", above]


def test_kmms_firmware_path_holds_the_drivers_firmware(podman: Client, shell: tuple[str, ...]) -> None:
    assert f"/firmware/nvidia/{DRIVER}/gsp_ga10x.bin" in podman(*shell, "find /firmware -name '*.bin'").split()


def test_the_recommended_kind_lies_where_kmm_looks_and_the_other_elsewhere(podman: Client, shell: tuple[str, ...]) -> None:
    script = (
        f"modinfo -F license /opt/lib/modules/{KERNEL}/nvidia.ko; modinfo -F license /opt/open/lib/modules/{KERNEL}/nvidia.ko"
    )
    assert podman(*shell, script).splitlines() == ["NVIDIA", "Dual MIT/GPL"]
