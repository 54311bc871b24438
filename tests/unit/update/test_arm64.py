"""What is called otherwise on arm64: addresses, names, tags, package indices, Dockerfiles, and what a host asks for."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import lockfile
from pipeline.config.records import Arch, Lock, OsRelease
from pipeline.core.versions import DriverVersion
from pipeline.outcomes import index as indexes
from pipeline.outcomes.index import Index, dump, entry_of
from pipeline.plan import matrix
from pipeline.plan.pairs import Pair
from pipeline.update.pinning.pin_kernels import CONFIG, DEVELOPER_CONTAINER
from pipeline.update.pinning.pin_kernels import KERNEL as VMLINUZ
from pipeline.upstream.coreos import fedora_kernel, flatcar
from pipeline.upstream.nvidia import downloads, feeds
from tests import samples

HOST = Path(__file__).parents[3] / "host/lib"
DRIVER = DriverVersion("580.178.04")
KOJI = "https://kojipkgs.fedoraproject.org/packages/kernel/6.17.7/300.fc43/aarch64"
ADDRESSES = {
    fedora_kernel.kernel_rpm_urls("6.17.7-300.fc43.aarch64")[0]: f"{KOJI}/kernel-devel-6.17.7-300.fc43.aarch64.rpm",
    fedora_kernel.kernel_rpm_urls("6.17.7-300.fc43.aarch64", "kernel-core")[0]: f"{KOJI}/kernel-core-6.17.7-300.fc43.aarch64.rpm",
    **{
        flatcar.file_url("stable", "arm64", "4593.2.5", name): (
            f"https://stable.release.flatcar-linux.net/arm64-usr/4593.2.5/{name}"
        )
        for name in (DEVELOPER_CONTAINER, VMLINUZ, CONFIG, "version.txt")
    },
    downloads.tesla_url(DRIVER, "arm64"): ("https://us.download.nvidia.com/tesla/580.178.04/NVIDIA-Linux-aarch64-580.178.04.run"),
    downloads.xfree86_url(DRIVER, "arm64"): (
        "https://download.nvidia.com/XFree86/Linux-aarch64/580.178.04/NVIDIA-Linux-aarch64-580.178.04.run"
    ),
    downloads.redist_path(DRIVER, "arm64"): ("nvidia_driver/linux-sbsa/nvidia_driver-linux-sbsa-580.178.04-archive.tar.xz"),
    feeds.latest_url("arm64"): "https://download.nvidia.com/XFree86/Linux-aarch64/latest.txt",
}


@pytest.mark.parametrize("made", ADDRESSES)
def test_every_vendor_has_its_own_word_for_arm64_in_an_address(made: str) -> None:
    assert made == ADDRESSES[made]


_number = st.integers(0, 999)
_driver = st.builds(lambda a, b, c: f"{a}.{b:03}.{c:02}", st.integers(470, 620), st.integers(1, 299), st.integers(1, 20))
_version = st.builds(lambda a, b, c: f"{a}.{b}.{c}", st.integers(4, 9), st.integers(0, 30), _number)


@given(_driver, st.sampled_from(["amd64", "arm64"]))
def test_an_address_never_names_the_other_architecture(driver: str, arch: Arch) -> None:
    version = DriverVersion(driver)
    others = {"amd64": ("aarch64", "arm64", "sbsa"), "arm64": ("x86_64", "amd64")}[arch]
    made = [
        downloads.tesla_url(version, arch),
        downloads.xfree86_url(version, arch),
        downloads.sha256sum_url(version, arch),
        downloads.redist_path(version, arch),
        *downloads.fabric_urls(version, arch),
        flatcar.file_url("beta", arch, "4593.1.0", VMLINUZ),
    ]
    assert not [url for url in made if any(other in url for other in others)]
    assert all(driver in url for url in made[:-1])


@given(_version, st.integers(30, 60), st.integers(100, 999), st.sampled_from(["x86_64", "aarch64"]))
def test_a_fedora_kernels_architecture_is_its_names_last_part_everywhere(version: str, fedora: int, build: int, rpm: str) -> None:
    kernel = f"{version}-{build}.fc{fedora}.{rpm}"
    assert fedora_kernel.split(kernel) == (version, f"{build}.fc{fedora}", rpm)
    other = {"x86_64": "aarch64", "aarch64": "x86_64"}[rpm]
    for url in fedora_kernel.kernel_rpm_urls(kernel, "kernel-core"):
        assert f"/{rpm}/" in url
        assert url.endswith(f"/kernel-core-{kernel}.rpm")
        assert other not in url


def _lock(os: str, version: str, driver: str) -> Lock:
    """A kernel of one family on both architectures, named as the family names it."""
    names = {
        "flatcar": (f"{version}-flatcar", f"{version}-flatcar"),
        "fedora-coreos": (f"{version}-300.fc43.x86_64", f"{version}-300.fc43.aarch64"),
        "debian": (f"{version}+deb13-cloud-amd64", f"{version}+deb13-cloud-arm64"),
    }[os]
    release = {
        "flatcar": samples.flatcar_release(),
        "fedora-coreos": OsRelease(channel="stable", version="43.20260101.3.0", id="fedora", version_id="43"),
        "debian": OsRelease(channel="trixie", version=f"{version}-1", id="debian", version_id="13"),
    }[os]
    values = {"os": os, "releases": (release,), "drivers": (driver,)}
    amd, arm = (samples.kernel(name, version, **values) for name in names)
    both = samples.both_arches(driver)
    return samples.changed(both, kernels=(amd, samples.of_arch(arm, "arm64")))  # type: ignore[no-any-return]


@given(st.sampled_from(["flatcar", "fedora-coreos", "debian"]), _version, _driver)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_ids_tags_and_the_lock_hold_for_every_family_on_both(os: str, version: str, driver: str) -> None:
    the_lock = _lock(os, version, driver)
    data = lockfile.dump(the_lock)
    assert lockfile.dump(lockfile.parse(data)) == data, "the lock comes back as it was"
    plan = samples.plan(the_lock)
    pairs: dict[str, Pair] = {pair.kernel.arch: pair for pair in plan.pairs}
    tag, os_tag = {
        "flatcar": ("{v}-flatcar", "flatcar4593.2.5"),
        "fedora-coreos": ("{v}-300.fc43.{rpm}", "fedora43"),
        "debian": ("{v}_deb13-cloud-{arch}", "debian13"),
    }[os]
    for arch, rpm in (("amd64", "x86_64"), ("arm64", "aarch64")):
        kernel = tag.format(v=version, rpm=rpm, arch=arch)
        assert pairs[arch].id == f"{os}/{arch}:{pairs[arch].kernel.kernel}-{driver}"
        assert pairs[arch].tags == (f"{kernel}-{driver}", f"{driver}-{kernel}-{os_tag}")
        branch = driver.partition(".")[0]
        assert pairs[arch].aliases == (f"{kernel}-{branch}", f"{branch}-{kernel}-{os_tag}")
    shared = bool(set(pairs["amd64"].tags) & set(pairs["arm64"].tags))
    assert shared == (os == "flatcar")
    assert bool(pairs["amd64"].siblings()) == shared
    assert pairs["amd64"].recipe != pairs["arm64"].recipe
    jobs = matrix.matrix(plan.pairs, plan.pairs)
    assert sum(job.pairs for job in jobs.include) == 2
    assert len({job.id for job in jobs.include}) == len(jobs.include)


@given(st.sampled_from(["flatcar", "debian"]), _version, _driver)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_an_arm64_dockerfile_names_amd64_only_where_the_compiler_runs(os: str, version: str, driver: str) -> None:
    plan = samples.plan(_lock(os, version, driver))
    (arm,) = (pair for pair in plan.pairs if pair.kernel.arch == "arm64")
    texts = [
        arm.rendered.text,
        plan.renderer.userspace(plan.lock.driver(driver, "arm64")).text,
        plan.renderer.base(plan.lock.base("arm64")).text,
    ]
    for text in texts:
        assert not re.findall(r"x86_64|amd64|x86-64", text)
        assert "aarch64-linux-gnu" in text
    assert "CROSS_COMPILE=aarch64-linux-gnu- " in texts[0]
    assert "ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- KCFLAGS=-g0" in texts[0]
    assert "Runs on amd64." in plan.renderer.toolchain(plan.lock.toolchain(arm.kernel)).text


def test_a_toolchain_of_its_own_architecture_has_no_prefix_and_runs_what_it_makes() -> None:
    both = samples.both_arches()
    native = samples.of_arch(samples.a_lock().toolchains[0], "arm64")
    plan = samples.plan(samples.changed(both, toolchains=(both.toolchains[0], native)))
    (arm,) = (pair for pair in plan.pairs if pair.kernel.arch == "arm64")
    assert "CROSS_COMPILE" not in arm.rendered.text
    assert "chroot /out /bin/sh -c 'kmod --version" in plan.renderer.base(plan.lock.base("arm64")).text
    assert "ldconfig -r" in plan.renderer.userspace(plan.lock.driver("535.261.03", "arm64")).text


def test_hosts_without_json_find_each_architecture_in_a_file_of_its_own() -> None:
    pairs = samples.plan(samples.both_arches()).pairs
    entries = [entry_of(pair, "built", digest=f"sha256:{pair.recipe}") for pair in pairs]
    files = indexes.kernel_files(entries)
    assert set(files) == {f"kernel/{arch}/{samples.FLATCAR}" for arch in ("amd64", "arm64")}
    for pair in pairs:
        line = files[f"kernel/{pair.kernel.arch}/{samples.FLATCAR}"].decode()
        assert line == f"535.261.03 built sha256:{pair.recipe}\n"


@pytest.mark.parametrize(("machine", "arch"), [("x86_64", "amd64"), ("aarch64", "arm64")])
@pytest.mark.parametrize("shell", [["dash"], ["busybox", "sh"]], ids=["dash", "busybox"])
def test_of_one_kernel_string_a_host_takes_the_entry_of_its_own_machine(
    tmp_path: Path, shell: list[str], machine: str, arch: str
) -> None:
    pairs = samples.plan(samples.both_arches()).pairs
    digests: dict[str, str] = {pair.kernel.arch: f"sha256:{pair.recipe}" for pair in pairs}
    entries = tuple(entry_of(p, "built", digest=digests[p.kernel.arch], tags=p.tags) for p in pairs)
    (tmp_path / "state/index").mkdir(parents=True)
    (tmp_path / "state/index/index.json").write_bytes(dump(Index(serial=1, generated="2026-11-24T12:00:00Z", pairs=entries)))
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/osrelease").write_text(f"{samples.FLATCAR}\n")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text("ID=flatcar\nVERSION_ID=4593.2.5\n")
    program = f"""
        uname() {{ echo {machine}; }}
        . {HOST}/say.sh; . {HOST}/names.sh; . {HOST}/index.sh
        ROOT={tmp_path} STATE={tmp_path}/state NEXT_OS_TAG=''
        read_host
        echo "$ARCH $OS $OS_TAG $(tags_of "$KERNEL" 535.261.03 | tr '\\n' ' ')"
        index_entry "$KERNEL" 535.261.03
    """
    said = subprocess.run([*shell, "-euc", program], check=True, capture_output=True, text=True).stdout.splitlines()
    plain, operator = pairs[0].tags
    assert said[0] == f"{arch} flatcar flatcar4593.2.5 {operator} {plain} "
    assert said[1].split()[:3] == ["built", digests[arch], "535.261.03"]


def test_the_committed_lock_of_the_arm64_test_is_one_and_compiles_across() -> None:
    the_lock = lockfile.load(Path(__file__).parents[2] / "arm64/versions.lock")
    assert lockfile.dump(the_lock) == (Path(__file__).parents[2] / "arm64/versions.lock").read_bytes()
    assert {kernel.arch for kernel in the_lock.kernels} == {"arm64"}
    for kernel in the_lock.kernels:
        toolchain = the_lock.toolchain(kernel)
        assert (toolchain.runs_on, toolchain.prefix, toolchain.gcc) == ("amd64", "aarch64-linux-gnu-", "12.2.0")
        (kbuild,) = (file for file in kernel.headers if file.name.startswith("linux-kbuild-"))
        assert (kbuild.path or "").endswith("_amd64.deb")
    assert "http" not in json.dumps([file.path for file in the_lock.files()])
