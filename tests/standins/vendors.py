"""The vendors' servers on loopback: recorded feeds with one stand-in release added, and stand-in files under the real paths.

What is real: the formats, the programs that made them, the kernel, NVIDIA's sources and libraries. What is not:
docs/coreos.md has the list.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.config.records import Driver, File, Lock
from pipeline.core.versions import DriverVersion
from pipeline.fetch.store import Inputs
from pipeline.update.pinning import pin_kernels, pin_source
from pipeline.upstream.coreos import container_linux, fedora_coreos, flatcar
from pipeline.upstream.coreos.fedora_kernel import kernel_rpm_urls, split
from pipeline.upstream.nvidia import feeds as nvidia_feeds
from pipeline.upstream.nvidia.downloads import (
    REDIST,
    fabric_urls,
    redist_manifest_url,
    redist_path,
    sha256sum_url,
    tesla_url,
    xfree86_url,
)
from tests import recorded_upstream
from tests.signed_archive import Key
from tests.standins import driver, kernel, packing
from tests.support.cache import Cache, code_of, versions_of
from tests.support.digests import Part

FEDORA_KERNEL = f"{kernel.VERSION}-200.fc44.x86_64"
FLATCAR_KERNEL = f"{kernel.VERSION}-flatcar"
COREOS_KERNEL = f"{kernel.VERSION}-coreos"
FEDORA_RELEASE, FLATCAR_RELEASE, COREOS_RELEASE = "44.20991231.3.0", "9999.9.9", "9999.0.0"
BARE_RELEASE = "9999.1.0"
"""Of Flatcar's beta channel: the same kernel, its configuration, and no developer container."""
FEDORA_KEY = "https://fedoraproject.org/fedora.gpg"
FLATCAR_KEY = "https://www.flatcar.org/security/image-signing-key/Flatcar_Image_Signing_Key.asc"
COREOS_KEY = "https://coreos.com/security/image-signing-key/CoreOS_Image_Signing_Key.asc"
KERNEL_KEY = "https://kernel.org/.well-known/openpgpkey/hu/autosigner"
DEVELOPER_CONTAINER = "flatcar_developer_container.bin.bz2"
HOSTS = (
    *recorded_upstream.HOSTS,
    "fedoraproject.org",
    "kojipkgs.fedoraproject.org",
    "dl.fedoraproject.org",
    "fedoraproject-updates-archive.fedoraproject.org",
    "us.download.nvidia.com",
    "bincache.flatcar-linux.net",
    "stable.release.core-os.net",
    "cdn.kernel.org",
    "kernel.org",
)
TOOLCHAIN_RPMS = {
    "make": "https://kojipkgs.fedoraproject.org/packages/make/4.3/1.fc44/x86_64/make-4.3-1.fc44.x86_64.rpm",
    "patch": "https://kojipkgs.fedoraproject.org/packages/patch/2.7.6/1.fc44/x86_64/patch-2.7.6-1.fc44.x86_64.rpm",
}
"""What Fedora's stand-in image lacks, and gets as pinned packages."""
GPUS = "nvidia/supported-gpus/focal-nvidia-driver-525-supported-gpus.json"
"""A real list of supported GPUs, of another branch than the stand-in run file that it lies in."""
HEAVY_PACKAGES = {
    "libnvidia-eglcore",
    "libnvidia-glcore",
    "libnvidia-glvkspirv",
    "libnvidia-nvvm4",
    "libnvidia-rtcore",
    "libnvoptix1",
}
"""What the stand-in run file lacks, for time: most of the bytes, in libraries like the others."""
REDIST_PACKAGES = ("libcuda1", "libnvidia-ml1", "libnvidia-ptxjitcompiler1", "nvidia-smi", "firmware-nvidia-gsp")
CUDA = "12.2.9"
"""A CUDA release that never was, whose redist manifest names the stand-in driver."""
TARBALL = f"linux-{kernel.VERSION}.tar.xz"
FEDORA_WISHES = """
[fedora-coreos]
streams = ["stable"]
arches = ["amd64"]
keep = 1
images = false
keys = [{{fingerprint = "{key}", source = "{fedora}"}}]
"""
FLATCAR_WISHES = """
[flatcar]
channels = ["{channel}"]
arches = ["amd64"]
keep = 1
ahead = false
keys = [{{fingerprint = "{key}", source = "{flatcar}"}}]
"""
NVIDIA_WISHES = """
[nvidia]
branches = []
sources = ["data-centre"]
arches = ["amd64"]
"""
"""What a test wishes of each source: one release, one architecture. ``{key}`` and the rest are for ``str.format``."""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@dataclass(frozen=True)
class Vendors:
    """``base``: the address of the server that stands for all of them; ``www`` holds what it serves, by host and path."""

    base: str
    www: Path
    fingerprint: str
    kernels: dict[str, kernel.KernelBuild]

    def place(self, url: str) -> Path:
        """The file that is served as ``url``."""
        parts = urlsplit(url)
        path = self.www / parts.netloc / parts.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def mirrors(self, path: Path, registry: str) -> Path:
        """A file for DRIVER_MIRRORS that leads every vendor here, and Fedora's registry to ``registry``."""
        lines = [f'"https://{host}" = "{self.base}/{host}"' for host in HOSTS]
        path.write_text("\n".join(["[mirrors]", *lines, "[registries]", f'"registry.fedoraproject.org" = "{registry}"', ""]))
        return path


@contextlib.contextmanager
def vendors(
    work: Path, cache: Cache, inputs: Inputs, held: Lock, version: str, recorded: Path, key: Key, out: Path
) -> Iterator[Vendors]:
    """Serve everything: the kernels of ``out``, each packed as its vendor does, a toolchain's packages, two drivers.

    ``held`` pins the Debian packages that driver ``version`` and the toolchain are made of; ``out`` is what ``kernels`` left.
    """
    builds = {release: kernel.found(out, release) for release in (FLATCAR_KERNEL, FEDORA_KERNEL, COREOS_KERNEL)}
    pinned = held.driver(version, "amd64")
    with served(work / "www", recorded, key) as server:
        made = replace(server, kernels=builds)
        fedora_files(made, work / "fedora", key)
        flatcar_files(made, work / "flatcar", key)
        kernel_org_files(made, out / TARBALL, key)
        container_linux_files(made, key)
        toolchain_files(made, work / "toolchain", key, held, inputs)
        serve_run_file(made, version, run_file(cache, pinned, inputs, recorded / GPUS))
        serve_other_files(made, version, other_files(cache, pinned, inputs))
        yield made


@contextlib.contextmanager
def flatcar_alone(
    work: Path, cache: Cache, inputs: Inputs, held: Lock, version: str, recorded: Path, key: Key, out: Path
) -> Iterator[Vendors]:
    """Serve Flatcar's release and the driver's run file, and of the others their feeds."""
    with served(work / "www", recorded, key) as server:
        made = replace(server, kernels={FLATCAR_KERNEL: kernel.found(out, FLATCAR_KERNEL)})
        flatcar_files(made, work / "flatcar", key)
        serve_run_file(made, version, run_file(cache, held.driver(version, "amd64"), inputs, recorded / GPUS))
        yield made


@contextlib.contextmanager
def served(www: Path, recorded: Path, key: Key) -> Iterator[Vendors]:
    """The vendors' feeds and keys on loopback; whatever else is put into ``www`` is served with them."""
    handler = functools.partial(_Quiet, directory=str(www))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        listed = key._gpg("--list-keys", "--with-colons").decode().splitlines()
        fingerprint = next(line.split(":")[9] for line in listed if line.startswith("fpr:"))
        made = Vendors(f"http://127.0.0.1:{server.server_address[1]}", www, fingerprint, {})
        try:
            for url in (FEDORA_KEY, FLATCAR_KEY, COREOS_KEY, KERNEL_KEY):
                made.place(url).write_bytes(key.keyring.read_bytes())
            for url, data in feeds(recorded).items():
                made.place(url).write_bytes(data)
            yield made
        finally:
            server.shutdown()
            thread.join()


def kernels(cache: Cache, inputs: Inputs) -> Path:
    """A folder with the kernel under each of its names and its tarball; out of the cache."""
    source = File(
        name="linux-source-6.1",
        version="6.1.176-1",
        sha256=kernel.SOURCE_SHA256,
        size=kernel.SOURCE_SIZE,
        trust="signed-index",
        archive="debian",
        path=kernel.SOURCE_PATH,
    )

    def make(folder: Path) -> None:
        (folder / "source").mkdir()
        tree = kernel.unpack_source(inputs.path(source), folder / "source")
        kernel.tarball(tree, folder / TARBALL)
        kernel.build(tree, ("-flatcar", "-200.fc44.x86_64", "-coreos"), folder)
        shutil.rmtree(folder / "source")

    parts: dict[str, Part] = {"source": source.sha256, "code": Path(kernel.__file__), "tools": versions_of(*kernel.TOOLS)}
    return cache.entry("standin-kernels", parts, make)


def feeds(recorded: Path) -> dict[str, bytes]:
    """The recorded feeds, each with the stand-in release as its newest."""
    found = recorded_upstream.documents(recorded)
    for channel, release in (("stable", FLATCAR_RELEASE), ("beta", BARE_RELEASE)):
        feed = json.loads(found[flatcar.feed_url(channel)])
        newest = {**feed["current"], "major_software": {"kernel": [kernel.VERSION]}, "release_date": "2026-09-01 00:00:00 +0000"}
        found[flatcar.feed_url(channel)] = json.dumps({**feed, release: newest, "current": newest}).encode()
    retired = json.loads(found[container_linux.FEED])
    last = {
        **list(retired.values())[-1],
        "major_software": {"kernel": [kernel.VERSION]},
        "release_date": "2026-09-01 00:00:00 +0000",
    }
    found[container_linux.FEED] = json.dumps({**retired, COREOS_RELEASE: last}).encode()
    stream = json.loads(found[fedora_coreos.stream_url("stable")])
    for arch in stream["architectures"].values():
        arch["artifacts"]["metal"]["release"] = FEDORA_RELEASE
    found[fedora_coreos.stream_url("stable")] = json.dumps(stream).encode()
    index = json.loads(found[fedora_coreos.releases_url("stable")])
    index["releases"].append({"version": FEDORA_RELEASE, "commits": [{"architecture": "x86_64", "checksum": ""}]})
    found[fedora_coreos.releases_url("stable")] = json.dumps(index).encode()
    version, revision, arch = split(FEDORA_KERNEL)
    meta = {"ostree.linux": FEDORA_KERNEL, "rpmostree.rpmdb.pkglist": [["kernel", "0", version, revision, arch]]}
    found[fedora_coreos.commitmeta_url("stable", FEDORA_RELEASE, "amd64")] = json.dumps(meta).encode()
    drivers = json.loads(found[nvidia_feeds.DATA_CENTRE_URL])
    entries = drivers["535"]["driver_info"]
    for version in ("535.261.03", driver.OLD):
        url = tesla_url(DriverVersion(version), "amd64")
        entry = {**entries[0], "release_version": version, "architectures": ["x86_64"], "runfile_url": {"x86_64": url}}
        branch = drivers.setdefault(version.partition(".")[0], {"type": "lts branch", "driver_info": []})
        branch["driver_info"].append(entry)
    found[nvidia_feeds.DATA_CENTRE_URL] = json.dumps(drivers).encode()
    found[nvidia_feeds.END_OF_LIFE_URL] = recorded_upstream.ENDS
    return found


def fedora_files(made: Vendors, work: Path, key: Key) -> None:
    """kernel-devel and kernel-core, signed. kernel-devel is not at Koji any more: the next place has it."""
    build = made.kernels[FEDORA_KERNEL]
    version, revision, _ = split(FEDORA_KERNEL)
    devel, core = work / "devel", work / "core"
    (devel / "usr/src/kernels").mkdir(parents=True)
    packing.run("cp", "-a", build.devel, devel / "usr/src/kernels" / FEDORA_KERNEL)
    home = core / "lib/modules" / FEDORA_KERNEL
    home.mkdir(parents=True)
    shutil.copyfile(build.vmlinuz, home / "vmlinuz")
    shutil.copyfile(build.system_map, home / "System.map")
    (home / "build").symlink_to(f"/usr/src/kernels/{FEDORA_KERNEL}")
    for package, root, place in (("kernel-devel", devel, 1), ("kernel-core", core, 0)):
        path = packing.rpm(root, package, version, revision, work / f"{package}.rpmbuild")
        signed = packing.signed_rpm(path, key.home, work / "signed")
        shutil.copyfile(signed, made.place(kernel_rpm_urls(FEDORA_KERNEL, package)[place]))


def toolchain_files(made: Vendors, work: Path, key: Key, held: Lock, inputs: Inputs) -> None:
    """Packages of Fedora's toolchain, signed: Debian's own make and patch, packed anew as RPMs."""
    (debian,) = (t for t in held.toolchains if t.name == "debian-12" and t.arch == "amd64")
    debs = {file.name: file for file in debian.packages}
    for name, url in TOOLCHAIN_RPMS.items():
        root = work / name
        root.mkdir(parents=True)
        packing.run("dpkg-deb", "-x", inputs.path(debs[name]), root)
        shutil.rmtree(root / "usr/share")
        version, release = url.split("/")[-4:-2]
        path = packing.rpm(root, name, version, release, work / f"{name}.rpmbuild")
        shutil.copyfile(packing.signed_rpm(path, key.home, work / "signed"), made.place(url))


RUN_FILE, FABRIC, REDIST_ARCHIVE, OLD_RUN_FILE = "driver.run", "fabric.tar.xz", "redist.tar.xz", "old.run"
"""Names of the stand-ins of NVIDIA's files in the cache."""


def run_file(cache: Cache, pinned: Driver, inputs: Inputs, gpus: Path) -> Path:
    """A folder with ``RUN_FILE``, out of the cache."""

    def make(folder: Path) -> None:
        userspace = [inputs.path(file) for file in pinned.userspace if file.name not in HEAVY_PACKAGES]
        sources = _sources(pinned, inputs)
        driver.run_file(pinned.version, sources, userspace, folder, folder / "work", gpus=gpus).rename(folder / RUN_FILE)
        shutil.rmtree(folder / "work")

    return cache.entry("standin-run-file", {**_parts(pinned), "gpus": gpus}, make)


def other_files(cache: Cache, pinned: Driver, inputs: Inputs) -> Path:
    """A folder with the same driver as a redist archive, its Fabric Manager, and the run file of an older one."""

    def make(folder: Path) -> None:
        work = folder / "work"
        driver.fabric_manager(pinned.version, folder).rename(folder / FABRIC)
        few = [inputs.path(file) for file in pinned.userspace if file.name in REDIST_PACKAGES]
        driver.redist_archive(pinned.version, _sources(pinned, inputs), few, folder, work / "redist").rename(
            folder / REDIST_ARCHIVE
        )
        modules, *old = (inputs.path(file) for file in driver.old_packages())
        driver.run_file(driver.OLD, {"kernel": modules}, old, folder, work / "old").rename(folder / OLD_RUN_FILE)
        shutil.rmtree(work)

    old = "".join(file.sha256 for file in driver.old_packages())
    return cache.entry("standin-archives", {**_parts(pinned), "old": old}, make)


def _sources(pinned: Driver, inputs: Inputs) -> dict[str, Path]:
    return {"kernel-open": inputs.path(pinned.open[0]), "kernel": inputs.path(pinned.proprietary[0])}


def _parts(pinned: Driver) -> dict[str, Part]:
    """What decides a stand-in of a driver: its packages, the programs that pack it, this code."""
    packages = " ".join(file.sha256 for file in (*pinned.open, *pinned.proprietary, *pinned.userspace))
    code = code_of(driver, packing, sys.modules[__name__])
    return {"packages": packages, "code": code, "tools": versions_of("makeself", "xz-utils", "gzip", "tar")}


def serve_run_file(made: Vendors, version: str, kept: Path) -> None:
    """Put the run file where NVIDIA's data-centre site has it."""
    shutil.copyfile(kept / RUN_FILE, made.place(tesla_url(DriverVersion(version), "amd64")))


def serve_other_files(made: Vendors, version: str, kept: Path) -> None:
    """Put the Fabric Manager, the redist archive with its manifest, and the older driver with its sum where NVIDIA has them."""
    number = DriverVersion(version)
    shutil.copyfile(kept / FABRIC, made.place(fabric_urls(number, "amd64")[1]))
    archive = kept / REDIST_ARCHIVE
    shutil.copyfile(archive, made.place(f"{REDIST}/{redist_path(number, 'amd64')}"))
    said = {"sha256": hashlib.sha256(archive.read_bytes()).hexdigest(), "md5": "", "size": str(archive.stat().st_size)}
    entry = {"relative_path": redist_path(number, "amd64"), **said}
    manifest = {"release_date": "2025-01-01", "nvidia_driver": {"version": version, "linux-x86_64": entry}}
    made.place(redist_manifest_url(CUDA)).write_text(json.dumps(manifest))
    old = DriverVersion(driver.OLD)
    place = made.place(xfree86_url(old, "amd64"))  # the consumer site alone has it
    shutil.copyfile(kept / OLD_RUN_FILE, place)
    digest = hashlib.sha256(place.read_bytes()).hexdigest()
    made.place(sha256sum_url(old, "amd64")).write_text(f"{digest}  {place.name}\n")


def flatcar_files(made: Vendors, work: Path, key: Key) -> None:
    """The developer container, the kernel and its config, each with signature and digests; of beta's release no container."""
    build = made.kernels[FLATCAR_KERNEL]
    home = work / "root/usr/lib/modules" / FLATCAR_KERNEL
    home.mkdir(parents=True)
    packing.run("cp", "-a", build.devel, home / "build")
    (home / "source").symlink_to("build")
    image = packing.disk_image(work / "root", work / "container.bin.x", megabytes=128)
    files = {
        DEVELOPER_CONTAINER: image,
        "flatcar_production_pxe.vmlinuz": build.vmlinuz,
        "flatcar_production_image_kernel_config.txt": build.config,
    }
    for name, path in files.items():
        _signed(made, flatcar.file_url("stable", "amd64", FLATCAR_RELEASE, name), path.read_bytes(), key)
        if path != image:
            _signed(made, flatcar.file_url("beta", "amd64", BARE_RELEASE, name), path.read_bytes(), key)


def container_linux_files(made: Vendors, key: Key) -> None:
    """A release's directory: version.txt, the kernel and its config, as Flatcar's under CoreOS's names."""
    build, folder = made.kernels[COREOS_KERNEL], f"{container_linux.RELEASES}/{COREOS_RELEASE}"
    number, branch, patch = COREOS_RELEASE.split(".")
    words = {"BUILD": number, "BRANCH": branch, "PATCH": patch, "VERSION": COREOS_RELEASE, "VERSION_ID": COREOS_RELEASE}
    text = "".join(f"COREOS_{name}={value}\n" for name, value in words.items()) + 'COREOS_BUILD_ID=""\n'
    made.place(f"{folder}/version.txt").write_text(text)
    for name, path in ((pin_kernels.OLD_KERNEL, build.vmlinuz), (pin_kernels.OLD_CONFIG, build.config)):
        _signed(made, f"{folder}/{name}", path.read_bytes(), key)


def kernel_org_files(made: Vendors, tarball: Path, key: Key) -> None:
    """The tarball, and the signed list of sums of its directory, with a line of another file as well."""
    folder = f"{pin_source.KERNEL_ORG}/v6.x"
    shutil.copyfile(tarball, made.place(f"{folder}/{TARBALL}"))
    with tarball.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    text = f"{'0' * 64}  linux-6.1.175.tar.xz\n{digest}  {TARBALL}\n"
    made.place(f"{folder}/sha256sums.asc").write_bytes(key.clearsign(text.encode()))


def _signed(made: Vendors, url: str, data: bytes, key: Key) -> None:
    """``data`` at ``url``, its signature and its digests beside it."""
    made.place(url).write_bytes(data)
    made.place(f"{url}.sig").write_bytes(key._gpg("--detach-sign", data=data))
    made.place(f"{url}.DIGESTS").write_text(f"# SHA512 HASH\n{hashlib.sha512(data).hexdigest()}  {url.rpartition('/')[2]}\n")
