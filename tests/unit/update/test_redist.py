"""NVIDIA's redist archives: a driver out of one, with the Fabric Manager of the same version, pinned by the manifests' sums.

Synthetic archives in the vendor's layout; what the layout is known from stands in pipeline/trees/userspace.py.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import tarfile
from pathlib import Path

import msgspec
import pytest

from pipeline.config import lockfile
from pipeline.config.nvidia_policy import Drivers, Source
from pipeline.config.records import Arch, Driver
from pipeline.core.errors import BadFileError, IntegrityError, NotFoundError
from pipeline.core.versions import DriverVersion
from pipeline.formats import nvidia_redist
from pipeline.formats.unpacking import to_tar
from pipeline.trees import tars
from pipeline.update.nvidia import Choice, Reading
from pipeline.update.pinning import pin
from pipeline.update.pinning.context import Means, Unpinned
from pipeline.update.reconcile import Notes
from pipeline.upstream.nvidia.downloads import (
    REDIST,
    REDIST_OF_DRIVERS,
    fabric_urls,
    parse_redist,
    redist_manifest_url,
    redist_path,
    tesla_url,
    xfree86_url,
)
from pipeline.upstream.nvidia.selection import Chosen, of_redist
from tests import samples
from tests.signed_archive import Key
from tests.unit.update.test_pin_vendors import Vendor

V = "575.57.08"
VERSION = DriverVersion(V)
LIMIT = 64 << 20
GPUS = {"chips": [{"devid": "0x2330", "name": "H100", "features": ["kernelopen", "gsp_proprietary_supported"]}]}
DRIVER: dict[str, str] = {
    "LICENSE": "terms",
    "bin/nvidia-smi": "a program",
    "bin/nvidia-installer": "not for an image",
    "sbin/nvidia-modprobe": "a program",
    f"lib/libcuda.so.{V}": "a library",
    f"lib/libnvidia-allocator.so.{V}": "a library",
    f"lib/vdpau/libvdpau_nvidia.so.{V}": "a library",
    "lib/libGL.so.1.7.0": "the container's own",
    f"lib/libglxserver_nvidia.so.{V}": "of X",
    f"lib32/libcuda.so.{V}": "of 32 bit",
    "etc/nvidia_icd.json": "{}",
    "etc/10_nvidia.json": "{}",
    "etc/nvidia.icd": f"libnvidia-opencl.so.{V}",
    "firmware/gsp_ga10x.bin": "firmware",
    "share/supported-gpus/supported-gpus.json": json.dumps(GPUS),
    "kernel/Kbuild": "sources",
    "kernel-open/Kbuild": "open sources",
}
FABRIC: dict[str, str] = {
    "LICENSE": "terms",
    "bin/nv-fabricmanager": "a daemon",
    "bin/nvidia-fabricmanager-start.sh": "for systemd",
    "lib/libnvfm.so.1": "a library",
    "etc/fabricmanager.cfg": "DAEMONIZE=1\n",
    "share/nvidia/nvswitch/dgxh100_hgxh100_topology": "which switch is where",
    "systemd/nvidia-fabricmanager.service": "for systemd",
    "include/nv_fm_agent.h": "for programs",
}


def archive(name: str, files: dict[str, str], links: dict[str, str] | None = None, *, top: str = "") -> bytes:
    """A redist archive; ``name`` without ``.tar.xz``."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz", preset=0) as tar:
        for path, text in files.items():
            info = tarfile.TarInfo(f"{top or name}/{path}")
            info.size, info.mode = len(text), 0o755 if path.startswith(("bin/", "sbin/")) else 0o644
            tar.addfile(info, io.BytesIO(text.encode()))
        for path, target in (links or {}).items():
            info = tarfile.TarInfo(f"{top or name}/{path}")
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return out.getvalue()


def name_of(url: str) -> str:
    return url.rpartition("/")[2].removesuffix(".tar.xz")


def manifest(driver: bytes, fabric: bytes | None = None, *, fabric_version: str = V, arch: str = "linux-x86_64") -> bytes:
    """A redist manifest as NVIDIA writes it, sizes as strings."""

    def entry(name: str, version: str, data: bytes) -> dict[str, object]:
        path = f"{name}/{arch}/{name}-{arch}-{version}-archive.tar.xz"
        said = {"relative_path": path, "sha256": hashlib.sha256(data).hexdigest(), "md5": "0" * 32, "size": str(len(data))}
        return {"name": name, "license": "NVIDIA Driver", "version": version, arch: said}

    whole: dict[str, object] = {"release_date": "2025-06-05", "nvidia_driver": entry("nvidia_driver", V, driver)}
    if fabric is not None:
        whole["fabricmanager"] = entry("fabricmanager", fabric_version, fabric)
    return json.dumps(whole).encode()


@pytest.fixture
def vendor(signing_key: Key, tmp_path: Path) -> Vendor:
    (tmp_path / "taken").mkdir()
    return Vendor(signing_key, tmp_path / "taken")


def means(vendor: Vendor, said: bytes, *, fabric: bool = True) -> Means:
    read = parse_redist(said, redist_manifest_url("12.9.1"))
    return msgspec.structs.replace(vendor.means(), redists=(read,), fabric_manager=fabric)


def chosen(*sources: Source, required: tuple[str, ...] = (), arch: Arch = "amd64") -> Chosen:
    return Chosen(version=V, sources={arch: sources}, required=required, reason="a test")  # type: ignore[arg-type]


def driver_at(arch: Arch = "amd64") -> str:
    return f"{REDIST}/{redist_path(VERSION, arch)}"


def test_a_driver_is_pinned_from_the_redist_archive_that_a_manifest_names(vendor: Vendor) -> None:
    url = driver_at()
    data, manager = archive(name_of(url), DRIVER), archive(name_of(fabric_urls(VERSION, "amd64")[0]), FABRIC)
    vendor.files |= {url: data, fabric_urls(VERSION, "amd64")[0]: manager}
    driver = pin.driver(chosen("redist"), "amd64", means(vendor, manifest(data, manager)))
    assert isinstance(driver, Driver)
    assert (driver.source, driver.kinds) == ("redist", ("open", "proprietary"))
    (file,), (fabric,) = driver.userspace, driver.fabric
    assert (file.urls, file.sha256, file.trust) == ((url,), hashlib.sha256(data).hexdigest(), "vendor-sum")
    assert (fabric.version, fabric.sha256, fabric.trust) == (V, hashlib.sha256(manager).hexdigest(), "vendor-sum")
    assert not any("sha256sum" in asked for asked in vendor.asked), "the manifest has the sum"


def test_where_no_site_has_the_run_file_the_redist_archive_is_the_next_source(vendor: Vendor) -> None:
    data = archive(name_of(driver_at()), DRIVER)
    vendor.files[driver_at()] = data
    driver = pin.driver(chosen("data-centre", "redist"), "amd64", means(vendor, manifest(data), fabric=False))
    assert isinstance(driver, Driver)
    assert (driver.source, driver.fabric) == ("redist", ())
    assert vendor.asked[:3] == [tesla_url(VERSION, "amd64"), xfree86_url(VERSION, "amd64"), driver_at()]
    del vendor.files[driver_at()]
    with pytest.raises(NotFoundError, match="404"):
        pin.driver(chosen("data-centre", "redist"), "amd64", means(vendor, manifest(data)))


def test_an_update_says_which_driver_has_no_fabric_manager(vendor: Vendor) -> None:
    data = archive(name_of(driver_at()), DRIVER)
    vendor.files[driver_at()] = data
    said = manifest(data)
    reading = Reading(redists=[parse_redist(said, redist_manifest_url("12.9.1"))])
    reading.listed = [of_redist(reading.redists[0])]
    policy = Drivers(
        branches=("575",), reasons={"575": "a test of it"}, sources=("redist",), arches=("amd64",), fabric_manager=True
    )
    choice = Choice(policy, reading, lockfile.empty(), datetime.date(2026, 11, 24), others=[], accept_fewer=False)
    notes = Notes()
    made = choice.lock(lockfile.empty(), vendor.means(), notes)
    assert [(d.version, d.source) for d in made.drivers] == [(V, "redist")]
    assert f"nvidia {V}/amd64: no Fabric Manager of that version: not for NVSwitch" in notes.reports


def test_a_server_of_arm64_is_called_sbsa(vendor: Vendor) -> None:
    url = f"{REDIST}/nvidia_driver/linux-sbsa/nvidia_driver-linux-sbsa-{V}-archive.tar.xz"
    assert url == driver_at("arm64")
    data = archive(name_of(url), DRIVER)
    vendor.files[url] = data
    fabric = archive(f"fabricmanager-linux-sbsa-{V}-archive", FABRIC)
    vendor.files[f"{REDIST_OF_DRIVERS}/fabricmanager/linux-sbsa/fabricmanager-linux-sbsa-{V}-archive.tar.xz"] = fabric
    driver = pin.driver(chosen("redist", arch="arm64"), "arm64", means(vendor, manifest(data, arch="linux-sbsa")))
    assert isinstance(driver, Driver)
    assert driver.arch == "arm64"
    assert driver.fabric[0].trust == "tls-first-sight", "the manifest does not name it, and the first place has none"


def test_an_archive_that_is_not_what_its_manifest_says_is_refused(vendor: Vendor) -> None:
    said = means(vendor, manifest(archive(name_of(driver_at()), DRIVER)))
    vendor.files[driver_at()] = archive(name_of(driver_at()), {**DRIVER, "LICENSE": "other terms"})
    with pytest.raises(IntegrityError, match="is not what its redist manifest says"):
        pin.driver(chosen("redist"), "amd64", said)


def test_a_fabric_manager_of_another_version_is_never_taken(vendor: Vendor) -> None:
    data = archive(name_of(driver_at()), DRIVER)
    vendor.files[driver_at()] = data
    other = archive("fabricmanager-linux-x86_64-570.1.2-archive", FABRIC)
    read = means(vendor, manifest(data, other, fabric_version="570.1.2"))
    driver = pin.driver(chosen("redist"), "amd64", read)
    assert isinstance(driver, Driver)
    assert driver.fabric == ()
    inside = archive(name_of(fabric_urls(VERSION, "amd64")[0]), FABRIC, top="fabricmanager-linux-x86_64-570.1.2-archive")
    vendor.files[fabric_urls(VERSION, "amd64")[0]] = inside
    with pytest.raises(IntegrityError, match="which is not below fabricmanager-linux-x86_64-575"):
        pin.driver(chosen("redist"), "amd64", read)


def test_what_is_no_fabric_manager_is_refused(vendor: Vendor) -> None:
    data = archive(name_of(driver_at()), DRIVER)
    url = fabric_urls(VERSION, "amd64")[1]
    vendor.files |= {driver_at(): data, url: archive(name_of(url), {"LICENSE": "terms"})}
    with pytest.raises(IntegrityError, match="holds no bin/nv-fabricmanager"):
        pin.driver(chosen("redist"), "amd64", means(vendor, manifest(data)))


def test_kinds_that_are_required_must_be_there(vendor: Vendor) -> None:
    old = {path: text for path, text in DRIVER.items() if not path.startswith("kernel-open/")}
    data = archive(name_of(driver_at()), old)
    vendor.files[driver_at()] = data
    wanting = pin.driver(chosen("redist", required=("open",)), "amd64", means(vendor, manifest(data)))
    assert isinstance(wanting, Unpinned)
    assert "its redist archive has no open module sources" in wanting.reason


def tree(make: str, tmp_path: Path, *archives: tuple[str, bytes]) -> dict[str, tuple[int, str]]:
    """(mode, content or link target) of every name in the tar that a build adds."""
    paths = []
    for name, data in archives:
        paths.append(tmp_path / f"{name}.tar.xz")
        paths[-1].write_bytes(data)
    made = to_tar(tars.entries(make, paths, "", tmp_path, LIMIT), tmp_path / "made.tar")  # type: ignore[arg-type]
    found = {}
    with tarfile.open(made) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isreg() else None
            found[member.name] = (member.mode, file.read().decode() if file else member.linkname)
    return found


def test_its_modules_are_compiled_and_its_userspace_lies_where_an_image_has_it(tmp_path: Path) -> None:
    name = name_of(driver_at())
    data = archive(name, DRIVER, {"lib/libcuda.so.1": f"libcuda.so.{V}", f"lib/libodd.so.{V}": f"libodd.so.{V}"})
    assert tree("redist", tmp_path, (name, data)) == {
        "kernel/Kbuild": (0o644, "sources"),
        "kernel-open/Kbuild": (0o644, "open sources"),
    }
    volume = "out/usr/local/nvidia"
    assert tree("redist-userspace", tmp_path, (name, data)) == {
        f"out/usr/share/licenses/nvidia-{V}/LICENSE": (0o644, "terms"),
        f"{volume}/bin/nvidia-smi": (0o755, "a program"),
        f"{volume}/bin/nvidia-modprobe": (0o755, "a program"),
        f"{volume}/lib64/libcuda.so.{V}": (0o644, "a library"),
        f"{volume}/lib64/libcuda.so.1": (0o777, f"libcuda.so.{V}"),
        f"{volume}/lib64/libnvidia-allocator.so.{V}": (0o644, "a library"),
        f"{volume}/lib64/gbm/nvidia-drm_gbm.so": (0o777, "../libnvidia-allocator.so.1"),
        f"{volume}/lib64/vdpau/libvdpau_nvidia.so.{V}": (0o644, "a library"),
        f"{volume}/share/vulkan/icd.d/nvidia_icd.json": (0o644, "{}"),
        f"{volume}/share/glvnd/egl_vendor.d/10_nvidia.json": (0o644, "{}"),
        f"{volume}/share/OpenCL/vendors/nvidia.icd": (0o644, f"libnvidia-opencl.so.{V}"),
        f"out/firmware/nvidia/{V}/gsp_ga10x.bin": (0o644, "firmware"),
        "out/opt/nvidia-driver/gpus": (0o644, "10de:2330 both\n"),
    }


def test_the_fabric_manager_lies_where_nvidia_driver_looks_for_it(tmp_path: Path) -> None:
    names = (name_of(driver_at()), f"fabricmanager-linux-x86_64-{V}-archive")
    made = tree("redist-userspace", tmp_path, (names[0], archive(names[0], DRIVER)), (names[1], archive(names[1], FABRIC)))
    program = (Path(__file__).parents[3] / "image/lib/daemons.sh").read_text()
    for place in ("usr/local/nvidia/bin/nv-fabricmanager", "usr/local/nvidia/share/nvidia/nvswitch/fabricmanager.cfg"):
        assert f"$IMAGE_ROOT/{place}" in program
        assert f"out/{place}" in made
    assert made["out/usr/local/nvidia/bin/nv-fabricmanager"] == (0o755, "a daemon")
    assert "out/usr/local/nvidia/share/nvidia/nvswitch/dgxh100_hgxh100_topology" in made
    assert "out/usr/local/nvidia/lib64/libnvfm.so.1" in made
    assert not [name for name in made if "systemd" in name or "start.sh" in name or name.endswith(".h")]


def test_an_image_with_the_fabric_manager_says_so_and_has_another_recipe() -> None:
    url = fabric_urls(DriverVersion("535.261.03"), "amd64")[0]
    manager = samples.vendor_file(url, "535.261.03")
    without = samples.vendor_lock("rpms")
    with_it = msgspec.structs.replace(without, drivers=(samples.run_driver(fabric=(manager,)),))
    (plain,), (fabric,) = samples.plan(without).pairs, samples.plan(with_it).pairs
    assert 'io.coreos-nvidia.fabric-manager="535.261.03"' in fabric.rendered.text
    assert "fabric-manager" not in plain.rendered.text
    assert plain.recipe != fabric.recipe


def test_a_lock_does_not_pair_the_fabric_manager_with_debians_packages() -> None:
    manager = samples.vendor_file(fabric_urls(DriverVersion("535.261.03"), "amd64")[0], "535.261.03")
    with pytest.raises(BadFileError, match=r"its Fabric Manager is not - at `\$\.drivers\[0\]\.fabric`"):
        lockfile.parse(lockfile.dump(samples.a_lock(drivers=(samples.driver(fabric=(manager,)),))))


@pytest.mark.parametrize(
    ("files", "links", "top", "reason"),
    [
        ({"../../etc/passwd": "x"}, {}, "", "leaves the tree"),
        ({"lib/x": "x"}, {}, "/opt", "leaves the tree"),
        ({"lib/x": "x"}, {}, "nvidia_driver-linux-x86_64-575.57.09-archive", "which is not below"),
        ({}, {"lib/x": "../../outside"}, "", "which is not below"),
        ({}, {"lib/x": "../../../outside"}, "", "outside the tree"),
    ],
)
def test_an_archive_that_leaves_its_directory_is_refused(
    files: dict[str, str], links: dict[str, str], top: str, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / redist_path(VERSION, "amd64").rpartition("/")[2]
    path.write_bytes(archive(name_of(str(path)), files, links, top=top))
    with pytest.raises(IntegrityError, match=reason) as refused:
        nvidia_redist.read(path)
    assert "\n" not in str(refused.value)


def test_an_archive_cut_short_or_a_bomb_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    name = name_of(driver_at())
    whole = archive(name, {f"lib/libcuda.so.{V}": "\0" * (65 << 20)})
    path = tmp_path / f"{name}.tar.xz"
    path.write_bytes(whole)
    with pytest.raises(IntegrityError, match=f"unpacks to more than {LIMIT} bytes: raise max_unpacked"):
        to_tar(tars.entries("redist-userspace", [path], "", tmp_path, LIMIT), tmp_path / "made.tar")
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(IntegrityError, match="cut off"):
        to_tar(tars.entries("redist-userspace", [path], "", tmp_path, 1 << 30), tmp_path / "made.tar")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
