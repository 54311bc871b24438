"""Pinning from vendors' files: got from the first place that has them, checked against the vendor's key, looked into."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from pipeline.config.records import Driver, Kernel
from pipeline.config.source_policy import VendorKey
from pipeline.core.errors import IntegrityError, NotFoundError, UpstreamDataError
from pipeline.core.versions import DriverVersion
from pipeline.fetch.fetcher import Fetcher
from pipeline.fetch.vendor_files import Artefacts, Taken
from pipeline.update.pinning import pin
from pipeline.update.pinning.context import Means, Unpinned
from pipeline.update.pinning.pin_kernels import BINCACHE, OLD_CONFIG, OLD_KERNEL
from pipeline.update.pinning.pin_source import KERNEL_ORG
from pipeline.upstream.coreos.container_linux import RELEASES
from pipeline.upstream.coreos.fedora_kernel import kernel_rpm_urls
from pipeline.upstream.coreos.flatcar import file_url
from pipeline.upstream.nvidia.downloads import sha256sum_url, tesla_url, xfree86_url
from pipeline.upstream.nvidia.selection import Chosen
from pipeline.upstream.records import Release
from tests import samples
from tests.misbehaving_server import Answer, MisbehavingServer, cut, file, status
from tests.signed_archive import Key
from tests.standins import packing

pytestmark = pytest.mark.skipif(
    not packing.have("rpmbuild", "rpmsign", "mke2fs", "sfdisk", "bzip2", "makeself", "gpg", "gpgv"),
    reason="rpm, e2fsprogs, fdisk, bzip2, makeself or gnupg is not installed (./doit.sh test installs them)",
)
FEDORA = "6.1.176-200.fc44.x86_64"
FLATCAR = "6.1.176-flatcar"
KEY_URL = "https://vendor.example/key.gpg"
DRIVER = DriverVersion("535.261.03")
DEVELOPER_CONTAINER = "flatcar_developer_container.bin.bz2"
VMLINUZ = "flatcar_production_pxe.vmlinuz"
CONFIG = "flatcar_production_image_kernel_config.txt"


class Vendor:
    """A vendor's server: URL to bytes; what it lacks is 404."""

    def __init__(self, key: Key, folder: Path) -> None:
        self.key, self.folder = key, folder
        self.files: dict[str, bytes] = {KEY_URL: key.keyring.read_bytes()}
        self.asked: list[str] = []

    def get(self, url: str, _immutable: bool = False) -> bytes:
        self.asked.append(url)
        if url not in self.files:
            raise NotFoundError(f"{url}: answered 404")
        return self.files[url]

    def take(self, urls: Sequence[str], max_bytes: int) -> Taken:
        for url in urls:
            try:
                data = self.get(url)
            except NotFoundError:
                continue
            place = self.folder / hashlib.sha256(url.encode()).hexdigest()[:8] / url.rpartition("/")[2]
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(data)
            return Taken(url, place, hashlib.sha256(data).hexdigest(), len(data))
        raise NotFoundError(f"{urls[0]}: answered 404")

    def means(self, *, keys: bool = True) -> Means:
        vouching = (VendorKey(fingerprint=fingerprint(self.key), source=KEY_URL),) if keys else ()
        return Means(get=self.get, take=self.take, keys=vouching, source_keys=vouching, lock=samples.vendor_lock("rpms"))

    def sign(self, url: str, data: bytes) -> None:
        self.files[url] = data
        self.files[f"{url}.sig"] = self.key._gpg("--detach-sign", data=data)
        name = url.rpartition("/")[2]
        digests = f"# MD5 HASH\n{'0' * 32}  {name}\n# SHA512 HASH\n{hashlib.sha512(data).hexdigest()}  {name}\n"
        self.files[f"{url}.DIGESTS"] = digests.encode()


def key_id(vendor: Vendor) -> str:
    return fingerprint(vendor.key)[-8:].lower()


def fingerprint(key: Key) -> str:
    listed = key._gpg("--list-keys", "--with-colons").decode().splitlines()
    return next(line.split(":")[9] for line in listed if line.startswith("fpr:"))


@pytest.fixture
def vendor(signing_key: Key, tmp_path: Path) -> Vendor:
    (tmp_path / "taken").mkdir()
    return Vendor(signing_key, tmp_path / "taken")


def release(os: str, kernel: str) -> Release:
    version = "44.20260817.3.0" if os == "fedora-coreos" else "4593.2.5"
    return msgspec.convert(
        {
            "os": os,
            "channel": "stable",
            "version": version,
            "arch": "amd64",
            "kernel": kernel,
            "kernel_version": "6.1.176",
            "date": "2026-08-17T00:00:00Z",
            "source_url": "https://vendor.example/feed",
            "state": {"current"},
        },
        Release,
    )


@pytest.fixture(scope="module")
def rpms(tmp_path_factory: pytest.TempPathFactory, signing_key: Key) -> dict[str, bytes]:
    """kernel-devel and kernel-core, signed; small."""
    work = tmp_path_factory.mktemp("rpms")
    made = {}
    for package, name in (
        ("kernel-devel", f"usr/src/kernels/{FEDORA}/Module.symvers"),
        ("kernel-core", f"lib/modules/{FEDORA}/vmlinuz"),
    ):
        root = work / package
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("content")
        path = packing.rpm(root, package, "6.1.176", "200.fc44", work / f"{package}.work")
        made[package] = packing.signed_rpm(path, signing_key.home, work / "signed").read_bytes()
        made[f"{package} unsigned"] = path.read_bytes()
    return made


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    work = tmp_path_factory.mktemp("container")
    build = work / "root/usr/lib/modules" / FLATCAR / "build"
    build.mkdir(parents=True)
    (build / "Module.symvers").write_text("content")
    return packing.disk_image(work / "root", work / "c.bin.x", megabytes=8).read_bytes()


def flatcar_url(name: str) -> str:
    return file_url("stable", "amd64", "4593.2.5", name)


def test_a_fedora_kernel_is_pinned_from_the_build_system_with_every_other_place_named(
    vendor: Vendor, rpms: dict[str, bytes]
) -> None:
    for package in ("kernel-devel", "kernel-core"):
        vendor.files[kernel_rpm_urls(FEDORA, package)[0]] = rpms[package]
    kernel = pin.fedora_coreos(release("fedora-coreos", FEDORA), vendor.means())
    assert isinstance(kernel, Kernel)
    assert (kernel.form, kernel.toolchain, kernel.version, kernel.date) == (
        "rpms",
        "fedora-44",
        "6.1.176",
        "2026-08-17T00:00:00Z",
    )
    (headers,), (image,) = kernel.headers, kernel.image
    assert headers.sha256 == hashlib.sha256(rpms["kernel-devel"]).hexdigest()
    signed = f"https://kojipkgs.fedoraproject.org/packages/kernel/6.1.176/200.fc44/data/signed/{key_id(vendor)}/x86_64/"
    assert headers.urls == (f"{signed}kernel-devel-{FEDORA}.rpm", *kernel_rpm_urls(FEDORA)), "Koji's signed copy first"
    assert (image.name, image.version, image.trust) == ("kernel-core", "6.1.176-200.fc44", "vendor-sum")


@pytest.mark.parametrize("place", [1, 2, 3], ids=["updates", "releases", "updates-archive"])
def test_where_koji_answers_404_the_next_places_are_asked_in_turn(place: int, vendor: Vendor, rpms: dict[str, bytes]) -> None:
    for package in ("kernel-devel", "kernel-core"):
        vendor.files[kernel_rpm_urls(FEDORA, package)[place]] = rpms[package]
    kernel = pin.fedora_coreos(release("fedora-coreos", FEDORA), vendor.means())
    assert isinstance(kernel, Kernel)
    asked = [url for url in vendor.asked if "/kernel-devel-" in url]
    places = kernel_rpm_urls(FEDORA, keys=[fingerprint(vendor.key)])
    assert asked == list(places[: place + 2])
    assert kernel.headers[0].urls == places, "a build asks them in turn as well"


@pytest.mark.parametrize("place", [1, 3], ids=["updates", "updates-archive"])
def test_what_koji_has_unsigned_is_passed_over_for_a_place_that_has_it_signed(
    place: int, vendor: Vendor, rpms: dict[str, bytes]
) -> None:
    for package in ("kernel-devel", "kernel-core"):
        vendor.files[kernel_rpm_urls(FEDORA, package)[0]] = rpms[f"{package} unsigned"]
        vendor.files[kernel_rpm_urls(FEDORA, package)[place]] = rpms[package]
    kernel = pin.fedora_coreos(release("fedora-coreos", FEDORA), vendor.means())
    assert isinstance(kernel, Kernel)
    assert kernel.headers[0].sha256 == hashlib.sha256(rpms["kernel-devel"]).hexdigest()
    koji = kernel_rpm_urls(FEDORA)[0]
    assert kernel.headers[0].urls == tuple(u for u in kernel_rpm_urls(FEDORA, keys=[fingerprint(vendor.key)]) if u != koji)


def test_where_no_place_has_it_the_kernel_is_pending_with_every_address(vendor: Vendor) -> None:
    means = vendor.means()
    result = pin.tried(lambda: pin.fedora_coreos(release("fedora-coreos", FEDORA), means))
    assert isinstance(result, Unpinned)
    assert "404" in result.reason


def test_a_fedora_kernel_that_nobody_signed_is_refused(vendor: Vendor, rpms: dict[str, bytes]) -> None:
    vendor.files[kernel_rpm_urls(FEDORA)[0]] = rpms["kernel-devel unsigned"]
    with pytest.raises(IntegrityError, match=r"x86_64\.rpm is not signed, and no other place has it: .*404"):
        pin.fedora_coreos(release("fedora-coreos", FEDORA), vendor.means())


def test_a_fedora_package_of_another_name_is_refused(vendor: Vendor, rpms: dict[str, bytes]) -> None:
    vendor.files[kernel_rpm_urls(FEDORA)[0]] = rpms["kernel-core"]
    with pytest.raises(IntegrityError, match=f"holds kernel-core-{FEDORA}"):
        pin.fedora_coreos(release("fedora-coreos", FEDORA), vendor.means())


def test_a_key_whose_fingerprint_nobody_named_vouches_for_nothing(vendor: Vendor, rpms: dict[str, bytes]) -> None:
    vendor.files[kernel_rpm_urls(FEDORA)[0]] = rpms["kernel-devel"]
    other = (VendorKey(fingerprint="0" * 40, source=KEY_URL),)
    means = msgspec.structs.replace(vendor.means(), keys=other)
    with pytest.raises(IntegrityError, match=r"which versions\.toml does not name"):
        pin.fedora_coreos(release("fedora-coreos", FEDORA), means)


def test_without_keys_or_a_toolchain_a_release_is_pending_with_the_reason(vendor: Vendor) -> None:
    without = pin.fedora_coreos(release("fedora-coreos", FEDORA), vendor.means(keys=False))
    assert isinstance(without, Unpinned)
    assert "no fingerprint of Fedora's signing key" in without.reason
    older = pin.fedora_coreos(release("fedora-coreos", FEDORA.replace("fc44", "fc39")), vendor.means())
    assert isinstance(older, Unpinned)
    assert older.reason == "no toolchain fedora-39 for amd64: give its image in a [[toolchain]] of versions.toml"
    assert not vendor.asked, "nothing is fetched that could not be used"


def test_a_flatcar_kernel_is_pinned_from_its_developer_container(vendor: Vendor, container: bytes) -> None:
    vendor.sign(flatcar_url(DEVELOPER_CONTAINER), container)
    vendor.sign(flatcar_url(VMLINUZ), b"vmlinuz")
    kernel = pin.flatcar(release("flatcar", FLATCAR), vendor.means())
    assert isinstance(kernel, Kernel)
    assert (kernel.form, kernel.toolchain) == ("developer-container", "debian-12")
    assert kernel.headers[0].urls == (flatcar_url(DEVELOPER_CONTAINER), f"{BINCACHE}/amd64/4593.2.5/{DEVELOPER_CONTAINER}")
    assert kernel.image[0].sha256 == hashlib.sha256(b"vmlinuz").hexdigest()


def test_a_developer_container_of_another_kernel_is_refused(vendor: Vendor, container: bytes) -> None:
    vendor.sign(flatcar_url(DEVELOPER_CONTAINER), container)
    vendor.sign(flatcar_url(VMLINUZ), b"vmlinuz")
    with pytest.raises(IntegrityError, match=r"is of 6\.1\.176-flatcar, not 6\.1\.177-flatcar"):
        pin.flatcar(release("flatcar", "6.1.177-flatcar"), vendor.means())


def test_a_flatcar_file_must_be_what_its_signature_and_its_digests_say(vendor: Vendor) -> None:
    url = flatcar_url(VMLINUZ)
    vendor.sign(url, b"vmlinuz")
    vendor.files[url] = b"another"
    with pytest.raises(IntegrityError, match="its signature is wrong"):
        pin.flatcar(release("flatcar", FLATCAR), vendor.means())
    vendor.sign(url, b"vmlinuz")
    vendor.files[f"{url}.DIGESTS"] = f"{'0' * 128}  {VMLINUZ}\n".encode()
    with pytest.raises(IntegrityError, match="is not what its DIGESTS say"):
        pin.flatcar(release("flatcar", FLATCAR), vendor.means())


def test_a_signature_or_key_that_is_none_is_a_reason_and_not_the_end_of_the_update(vendor: Vendor) -> None:
    url = flatcar_url(VMLINUZ)
    vendor.sign(url, b"vmlinuz")
    for odd in (b"-----BEGIN PGP SIGNATURE-----\n\n=\n-----END PGP SIGNATURE-----\n", b"-----BEGIN PGP", b"", b"<html>"):
        vendor.files[f"{url}.sig"] = odd
        reason = pin.tried(lambda: pin.flatcar(release("flatcar", FLATCAR), vendor.means()))
        assert isinstance(reason, Unpinned)
        assert VMLINUZ in reason.reason
    key = vendor.means().keys[0].source
    vendor.files[key] = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n"
    reason = pin.tried(lambda: pin.flatcar(release("flatcar", FLATCAR), vendor.means()))
    assert reason == Unpinned(f"{key} is no OpenPGP file")


def config(version: str) -> bytes:
    return f"#\n# Linux/x86 {version} Kernel Configuration\n#\nCONFIG_64BIT=y\nCONFIG_PCI=y\n".encode()


def with_source(vendor: Vendor, sums: str = "") -> Means:
    tarball = b"tarball"
    vendor.files[f"{KERNEL_ORG}/v6.x/linux-6.1.176.tar.xz"] = tarball
    text = sums or f"{hashlib.sha256(tarball).hexdigest()}  linux-6.1.176.tar.xz\n"
    vendor.files[f"{KERNEL_ORG}/v6.x/sha256sums.asc"] = vendor.key.clearsign(text.encode())
    vendor.sign(flatcar_url(VMLINUZ), b"vmlinuz")
    means = vendor.means()
    made = msgspec.structs.replace(means.lock.toolchains[0], name="debian-12-source")
    lock = msgspec.structs.replace(means.lock, toolchains=(*means.lock.toolchains, made))
    return msgspec.structs.replace(means, lock=lock)


def test_where_the_container_is_missing_the_published_config_and_kernel_orgs_source_are_taken(vendor: Vendor) -> None:
    means = with_source(vendor)
    vendor.sign(flatcar_url(CONFIG), config("6.1.176-flatcar"))
    kernel = pin.flatcar(release("flatcar", FLATCAR), means)
    assert isinstance(kernel, Kernel)
    assert (kernel.form, kernel.toolchain) == ("source", "debian-12-source")
    assert [f.name for f in kernel.headers] == ["linux", "config"]


COMPILERS = {"flatcar-a": "12.2.1-3.fc36", "flatcar-b": "13.2.1-7.fc39", "flatcar-c": "14.2.1-7.fc40"}


@pytest.mark.parametrize(
    ("line", "toolchain"),
    [
        ("CONFIG_GCC_VERSION=130300", "flatcar-b"),
        ("CONFIG_GCC_VERSION=140000", "flatcar-c"),
        ("CONFIG_GCC_VERSION=110400", "flatcar-a"),
        ("CONFIG_GCC_VERSION=0", "flatcar-a"),
        ("", "flatcar-a"),
    ],
    ids=["between", "same major", "older than all", "built by clang", "not published"],
)
def test_of_several_toolchains_the_one_closest_to_the_gcc_that_built_the_kernel_compiles_for_flatcar(
    line: str, toolchain: str, vendor: Vendor, container: bytes
) -> None:
    vendor.sign(flatcar_url(DEVELOPER_CONTAINER), container)
    vendor.sign(flatcar_url(VMLINUZ), b"vmlinuz")
    if line:
        vendor.sign(flatcar_url(CONFIG), config("6.1.176-flatcar") + f"{line}\n".encode())
    means = vendor.means()
    fedora = next(t for t in means.lock.toolchains if t.image)
    packages = {
        name: (samples.changed(means.lock.toolchains[0].packages[0], name="gcc", version=v),) for name, v in COMPILERS.items()
    }
    made = [samples.changed(fedora, name=name, os="flatcar", packages=packages[name]) for name in COMPILERS]
    lock = msgspec.structs.replace(means.lock, toolchains=(*means.lock.toolchains, *made[::-1]))
    kernel = pin.flatcar(release("flatcar", FLATCAR), msgspec.structs.replace(means, lock=lock))
    assert isinstance(kernel, Kernel)
    assert (kernel.form, kernel.toolchain) == ("developer-container", toolchain)


def test_where_all_toolchains_have_one_compiler_no_configuration_is_asked_for(vendor: Vendor, container: bytes) -> None:
    vendor.sign(flatcar_url(DEVELOPER_CONTAINER), container)
    vendor.sign(flatcar_url(VMLINUZ), b"vmlinuz")
    pin.flatcar(release("flatcar", FLATCAR), vendor.means())
    assert not [url for url in vendor.asked if CONFIG in url]


def test_a_kernel_that_is_compiled_across_is_not_taken_from_a_container_whose_programs_would_not_run(vendor: Vendor) -> None:
    means = with_source(vendor)
    crossing = tuple(samples.changed(samples.cross(), name=name) for name in ("debian-12", "debian-12-source"))
    lock = msgspec.structs.replace(means.lock, toolchains=(*means.lock.toolchains, *crossing))
    own = config("6.1.176-flatcar").replace(b"Linux/x86", b"Linux/arm64")
    for name, data in ((DEVELOPER_CONTAINER, b"arm64's"), (VMLINUZ, b"vmlinuz"), (CONFIG, own)):
        vendor.sign(flatcar_url(name).replace("amd64-usr", "arm64-usr"), data)
    arm = msgspec.structs.replace(release("flatcar", FLATCAR), arch="arm64")
    kernel = pin.flatcar(arm, msgspec.structs.replace(means, lock=lock))
    assert isinstance(kernel, Kernel)
    assert (kernel.arch, kernel.form, kernel.toolchain) == ("arm64", "source", "debian-12-source")
    assert kernel.image[0].urls[0] == f"https://stable.release.flatcar-linux.net/arm64-usr/4593.2.5/{VMLINUZ}"
    assert kernel.image[0].urls[1] == f"{BINCACHE}/arm64/4593.2.5/{VMLINUZ}"
    assert not [url for url in vendor.asked if DEVELOPER_CONTAINER in url]


def test_a_config_of_another_version_is_refused(vendor: Vendor) -> None:
    means = with_source(vendor)
    vendor.sign(flatcar_url(CONFIG), config("6.1.17"))
    with pytest.raises(IntegrityError, match=r"is the configuration of 6\.1\.17, not of 6\.1\.176-flatcar"):
        pin.flatcar(release("flatcar", FLATCAR), means)


def test_a_tarball_that_the_signed_sums_do_not_name_is_refused(vendor: Vendor) -> None:
    means = with_source(vendor, sums=f"{'0' * 64}  linux-6.1.176.tar.xz\n")
    vendor.sign(flatcar_url(CONFIG), config("6.1.176"))
    with pytest.raises(IntegrityError, match="is not what the signed list of sums says"):
        pin.flatcar(release("flatcar", FLATCAR), means)


def test_a_tarball_that_kernel_org_does_not_name_is_not_asked_for(vendor: Vendor) -> None:
    means = with_source(vendor, sums=f"{'0' * 64}  linux-6.1.175.tar.xz\n")
    vendor.sign(flatcar_url(CONFIG), config("6.1.176"))
    with pytest.raises(UpstreamDataError, match=r"kernel\.org has no linux-6\.1\.176\.tar\.xz"):
        pin.flatcar(release("flatcar", FLATCAR), means)
    assert f"{KERNEL_ORG}/v6.x/linux-6.1.176.tar.xz" not in vendor.asked


def retired(vendor: Vendor, *, version: str = "4593.2.5", kernel: str = "6.1.176-coreos", publish: bool = True) -> Means:
    """A release's directory of Container Linux, and kernel.org."""
    means = with_source(vendor)
    folder = f"{RELEASES}/4593.2.5"
    vendor.files[f"{folder}/version.txt"] = f'COREOS_VERSION={version}\nCOREOS_BUILD_ID=""\n'.encode()
    vendor.sign(f"{folder}/{OLD_KERNEL}", b"vmlinuz")
    if publish:
        vendor.sign(f"{folder}/{OLD_CONFIG}", config(kernel))
    return means


def test_a_container_linux_kernel_is_pinned_from_its_published_config_and_kernel_orgs_source(vendor: Vendor) -> None:
    kernel = pin.container_linux(release("container-linux", "6.1.176-coreos"), retired(vendor))
    assert isinstance(kernel, Kernel)
    assert (kernel.form, kernel.toolchain, kernel.kernel) == ("source", "debian-12-source", "6.1.176-coreos")
    assert [f.name for f in kernel.headers] == ["linux", "config"]
    assert kernel.image[0].urls == (f"{RELEASES}/4593.2.5/{OLD_KERNEL}",)


def test_a_config_with_another_revision_than_the_host_prints_is_refused(vendor: Vendor) -> None:
    means = retired(vendor, kernel="6.1.176-coreos-r1")
    with pytest.raises(IntegrityError, match=r"is the configuration of 6\.1\.176-coreos-r1, not of 6\.1\.176-coreos"):
        pin.container_linux(release("container-linux", "6.1.176-coreos"), means)


def test_a_directory_of_another_release_is_refused(vendor: Vendor) -> None:
    with pytest.raises(UpstreamDataError, match=r"4593\.2\.5/version\.txt is of 4592\.0\.0: nothing of it is used"):
        pin.container_linux(release("container-linux", "6.1.176-coreos"), retired(vendor, version="4592.0.0"))


def test_a_release_whose_configuration_is_not_published_says_where_else_it_comes_from(vendor: Vendor) -> None:
    found = pin.container_linux(release("container-linux", "6.1.176-coreos"), retired(vendor, publish=False))
    assert isinstance(found, Unpinned)
    assert found.reason.endswith("take /proc/config.gz of such a host for 'doit update --host'")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Run files: with both kinds, and with the proprietary one only."""
    work = tmp_path_factory.mktemp("runs")
    made = {}
    for name, folders in (("both", ("kernel", "kernel-open")), ("old", ("kernel",))):
        root = work / name
        lines = ["nvidia-installer 0755 INSTALLER_BINARY"]
        for folder in folders:
            (root / folder).mkdir(parents=True)
            (root / folder / "Kbuild").touch()
            lines.append(f"{folder}/Kbuild 0644 KERNEL_MODULE_SRC INHERIT_PATH_DEPTH:1 MODULE:resman")
        (root / "nvidia-installer").touch()
        (root / ".manifest").write_text("NVIDIA\n535.261.03\n" + "x\n" * 6 + "\n".join(lines) + "\n")
        made[name] = packing.run_file(root, work / f"{name}.run").read_bytes()
    return made


def run_for(arch: str, folder: Path) -> bytes:
    """A run file that says which architecture it is for."""
    root = folder / arch
    (root / "kernel-open").mkdir(parents=True)
    (root / "kernel-open/Kbuild").touch()
    (root / "nvidia-installer").write_text("#!/bin/sh\ntouch /tmp/was-run\n")
    title = f"NVIDIA Accelerated Graphics Driver for Linux-{arch}"
    listed = "kernel-open/Kbuild 0644 KERNEL_MODULE_SRC INHERIT_PATH_DEPTH:1 MODULE:resman\n"
    (root / ".manifest").write_text(f"{title}\n{DRIVER}\n" + "x\n" * 6 + listed)
    return packing.run_file(root, folder / f"{arch}.run").read_bytes()


def test_a_run_file_for_arm64_is_read_here_as_any_other_and_one_for_another_architecture_refused(
    vendor: Vendor, tmp_path: Path
) -> None:
    url = tesla_url(DRIVER, "arm64")
    assert url.endswith(f"/NVIDIA-Linux-aarch64-{DRIVER}.run")
    vendor.files[url] = run_for("aarch64", tmp_path)
    wish = Chosen(version=DRIVER.text, sources={"arm64": ("data-centre",)}, required=(), reason="a test")
    driver = pin.driver(wish, "arm64", vendor.means())
    assert isinstance(driver, Driver)
    assert (driver.arch, driver.kinds) == ("arm64", ("open",))
    vendor.files[url] = run_for("x86_64", tmp_path)
    with pytest.raises(UpstreamDataError, match="is for x86_64, not aarch64"):
        pin.driver(wish, "arm64", vendor.means())


def test_where_the_consumer_site_lists_a_driver_it_is_asked_first(vendor: Vendor, run: dict[str, bytes]) -> None:
    wish = Chosen(version=DRIVER.text, sources={"amd64": ("consumer",)}, required=(), reason="a test")
    vendor.files[xfree86_url(DRIVER, "amd64")] = run["both"]
    driver = pin.driver(wish, "amd64", vendor.means())
    assert isinstance(driver, Driver)
    assert vendor.asked[0] == xfree86_url(DRIVER, "amd64")
    assert driver.userspace[0].urls == (xfree86_url(DRIVER, "amd64"), tesla_url(DRIVER, "amd64"))


def chosen(*required: str) -> Chosen:
    return Chosen(version=DRIVER.text, sources={"amd64": ("data-centre",)}, required=required, reason="a test")  # type: ignore[arg-type]


def test_a_driver_is_pinned_from_the_data_centres_run_file_with_the_kinds_it_has(vendor: Vendor, run: dict[str, bytes]) -> None:
    vendor.files[tesla_url(DRIVER, "amd64")] = run["both"]
    driver = pin.driver(chosen(), "amd64", vendor.means())
    assert isinstance(driver, Driver)
    assert (driver.source, driver.kinds, driver.userspace[0].trust) == ("run", ("open", "proprietary"), "tls-first-sight")
    assert driver.userspace[0].urls == (tesla_url(DRIVER, "amd64"), xfree86_url(DRIVER, "amd64"))


def test_an_older_branch_is_pinned_with_the_proprietary_kind_alone(vendor: Vendor, run: dict[str, bytes]) -> None:
    url = xfree86_url(DRIVER, "amd64")
    vendor.files[url] = run["old"]
    vendor.files[sha256sum_url(DRIVER, "amd64")] = (
        f"{hashlib.sha256(run['old']).hexdigest()}  {url.rpartition('/')[2]}\n".encode()
    )
    driver = pin.driver(chosen(), "amd64", vendor.means())
    assert isinstance(driver, Driver)
    assert (driver.kinds, driver.userspace[0].trust) == (("proprietary",), "vendor-sum")
    wanting = pin.driver(chosen("open"), "amd64", vendor.means())
    assert isinstance(wanting, Unpinned)
    assert "no open module sources" in wanting.reason


def test_a_driver_that_is_not_what_its_sum_says_is_refused(vendor: Vendor, run: dict[str, bytes]) -> None:
    vendor.files[tesla_url(DRIVER, "amd64")] = run["both"]
    name = tesla_url(DRIVER, "amd64").rpartition("/")[2]
    vendor.files[sha256sum_url(DRIVER, "amd64")] = f"{'0' * 64}  {name}\n".encode()
    with pytest.raises(IntegrityError, match="is not what"):
        pin.driver(chosen(), "amd64", vendor.means())


def test_what_update_takes_lies_in_the_store_of_pinned_files(server: MisbehavingServer, fetcher: Fetcher, tmp_path: Path) -> None:
    server.says("/there", file(b"content"))
    server.says("/gone", status(404))
    taken = Artefacts(fetcher, tmp_path / "store", tmp_path / "scratch").take(
        [f"{server.base}/gone", f"{server.base}/there"], 100
    )
    assert taken.url == f"{server.base}/there"
    digest = hashlib.sha256(b"content").hexdigest()
    assert (tmp_path / "store/sha256" / digest[:2] / digest).read_bytes() == b"content"
    assert taken.path.name == "there"


def test_what_update_takes_has_a_limit(server: MisbehavingServer, fetcher: Fetcher, tmp_path: Path) -> None:
    server.says("/large", file(b"x" * 101))
    with pytest.raises(IntegrityError, match="has more than 100 bytes"):
        Artefacts(fetcher, tmp_path / "store", tmp_path / "scratch").take([f"{server.base}/large"], 100)
    assert not (tmp_path / "store").exists()


DOCUMENT = bytes(range(200)) * 5


@pytest.mark.parametrize("validators", [{"etag": '"one"'}, {"last_modified": "Tue, 24 Nov 2026 10:00:00 GMT"}])
def test_what_update_takes_goes_on_where_it_was_cut_off(
    server: MisbehavingServer, fetcher: Fetcher, tmp_path: Path, validators: dict[str, str]
) -> None:
    named = {{"etag": "ETag", "last_modified": "Last-Modified"}[key]: value for key, value in validators.items()}
    server.says("/file.rpm", cut(DOCUMENT, 300, headers=named), file(DOCUMENT, **validators))  # type: ignore[arg-type]
    taken = Artefacts(fetcher, tmp_path / "store", tmp_path / "scratch").take([f"{server.base}/file.rpm"], 1000)
    assert (taken.sha256, taken.size) == (hashlib.sha256(DOCUMENT).hexdigest(), 1000)
    assert taken.path.read_bytes() == DOCUMENT
    assert [r.headers.get("range") for r in server.requests] == [None, "bytes=300-"]
    assert server.requests[1].headers["if-range"] in validators.values()


@pytest.mark.parametrize("etag", ["", 'W/"one"'])
def test_what_its_server_does_not_name_is_taken_anew_rather_than_put_together(
    server: MisbehavingServer, fetcher: Fetcher, tmp_path: Path, etag: str
) -> None:
    server.says("/file.rpm", cut(b"z" * 1000, 300, headers={"ETag": etag} if etag else None), file(DOCUMENT))
    taken = Artefacts(fetcher, tmp_path / "store", tmp_path / "scratch").take([f"{server.base}/file.rpm"], 1000)
    assert taken.path.read_bytes() == DOCUMENT
    assert [r.headers.get("range") for r in server.requests] == [None, None]


@pytest.mark.parametrize(
    "answer",
    [file(DOCUMENT, ranges=False), status(416), status(206, {"Content-Range": "bytes 0-999/1000"}, DOCUMENT)],
    ids=["the whole file", "416", "another part"],
)
def test_a_file_that_changed_in_between_is_taken_anew(
    server: MisbehavingServer, fetcher: Fetcher, tmp_path: Path, answer: Answer
) -> None:
    server.says("/file.rpm", cut(b"z" * 1000, 300, headers={"ETag": '"one"'}), answer, file(DOCUMENT))
    taken = Artefacts(fetcher, tmp_path / "store", tmp_path / "scratch").take([f"{server.base}/file.rpm"], 1000)
    assert taken.path.read_bytes() == DOCUMENT
    assert server.requests[1].headers["range"] == "bytes=300-"
