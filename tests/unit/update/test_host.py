"""``doit update --host``: the kernel of one machine, out of its own files and kernel.org's source, into versions.host.lock."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import struct
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from pipeline.cli.workspace import Workspace
from pipeline.config import host_lockfile, lockfile
from pipeline.config.compat import Compat
from pipeline.config.policies import policies
from pipeline.config.records import Lock
from pipeline.config.versions_toml import Wanted
from pipeline.core.errors import BadFileError, IntegrityError, PipelineError, UpstreamDataError, UsageError
from pipeline.fetch.apt_sources import Archives
from pipeline.fetch.fetcher import Fetcher
from pipeline.fetch.mirrors import load
from pipeline.fetch.store import Inputs
from pipeline.fetch.vendor_files import Artefacts
from pipeline.formats.kernels import kernel_image
from pipeline.plan.pairs import Plan
from pipeline.plan.render import Renderer
from pipeline.proof.kernel_files import unprovable
from pipeline.update.host import Result, Sources, update_host
from pipeline.update.pinning.context import Means
from pipeline.update.pinning.pin_source import KERNEL_ORG, kernel_org_version
from pipeline.update.this_machine import no_config, this_machine
from tests import samples
from tests.documents import README
from tests.misbehaving_server import MisbehavingServer, file
from tests.signed_archive import Key, Served, SignedArchive
from tests.small_project import SmallProject

pytestmark = pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt-get solves, and this is no Debian")
RELEASE = "6.1.176-mine"
KEY_URL = "https://kernel.org/autosigner.asc"
TARBALL = b"a tarball"
TOML = """
[debian]
version_id = "12"
keyring = "{keyring}"
suites = [{{archive = "debian", suite = "bookworm"}}, {{archive = "debian-security", suite = "bookworm-security"}}]
toolchain = ["gcc-12"]
source_toolchain = ["kmod"]
base = ["busybox"]
[kernel-org]
keys = [{{fingerprint = "{fingerprint}", source = "{source}"}}]
"""


def config(version: str = "6.1.176", local: str = "-mine", arch: str = "x86", more: str = "") -> bytes:
    """The first lines of a kernel's configuration, as conf writes them, and its own suffix."""
    head = f"#\n# Automatically generated file; DO NOT EDIT.\n# Linux/{arch} {version} Kernel Configuration\n#\n"
    return f'{head}CONFIG_64BIT=y\nCONFIG_LOCALVERSION="{local}"\n{more}'.encode()


def image(release: str) -> bytes:
    """The head of a bzImage that names its release (Documentation/arch/x86/boot.rst, kernel_version)."""
    data = bytearray(0x400)
    data[0x202:0x206] = b"HdrS"
    struct.pack_into("<HHIIH", data, 0x206, 0x20F, 0, 0, 0, 0)
    struct.pack_into("<H", data, 0x20E, 0x100)
    data[0x300 : 0x300 + len(release) + 9] = f"{release} (a@b) #1".encode()[: len(release) + 9]
    return bytes(data)


@dataclass
class World:
    """A machine's files below ``root``, the servers, and what is wanted."""

    root: Path
    archive: SignedArchive
    told: str
    server: MisbehavingServer
    fetcher: Fetcher
    store: Path
    toml: str
    main: Lock = field(default_factory=samples.a_lock)

    def put(self, place: str, data: bytes) -> Path:
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    @property
    def wanted(self) -> Wanted:
        return samples.wishes(self.toml)

    def pin(self, held: Lock | None = None, driver: str = "", running: str = RELEASE, **told: str) -> Result:
        """What is pinned for a machine on which ``running`` runs."""
        machine = this_machine(root=self.root, running=running, machine="x86_64", **told)
        keys = policies(self.wanted).kernel_org
        means = Means(
            get=lambda url, immutable: self.fetcher.get(url, immutable=immutable),
            source_keys=keys.keys if keys else (),
            lock=self.main,
            take=Artefacts(self.fetcher, self.store, self.root / "scratch").take,
        )
        archives = Archives(self.wanted, {"DRIVER_ARCHIVES": self.told}, self.root / "no-apt")
        sources = Sources(self.fetcher, archives, means, self.store)
        return update_host(self.wanted, self.main, held, machine, sources, Compat(), driver)


@pytest.fixture
def world(archive: SignedArchive, archive_server: Served, server: MisbehavingServer, signing_key: Key, tmp_path: Path) -> World:
    told = f"debian={archive_server.url}/debian debian-security={archive_server.url}/debian-security"
    mirrors = tmp_path / "mirrors.toml"
    mirrors.write_text(f'[mirrors]\n"https://cdn.kernel.org" = "{server.base}/cdn"\n"https://kernel.org" = "{server.base}/org"\n')
    fetcher = Fetcher(tmp_path / "http", sleep=lambda seconds: None, log=lambda line: None, mirrors=load(str(mirrors)))
    listed = signing_key._gpg("--list-keys", "--with-colons").decode().splitlines()
    fingerprint = next(line.split(":")[9] for line in listed if line.startswith("fpr:"))
    server.says("/org/autosigner.asc", file(signing_key.keyring.read_bytes()))
    sums = f"{hashlib.sha256(TARBALL).hexdigest()}  linux-6.1.176.tar.xz\n".encode()
    folder = KERNEL_ORG.removeprefix("https://cdn.kernel.org")
    server.says(f"/cdn{folder}/v6.x/sha256sums.asc", file(signing_key.clearsign(sums)))
    server.says(f"/cdn{folder}/v6.x/linux-6.1.176.tar.xz", file(TARBALL))
    toml = TOML.format(keyring=signing_key.keyring, fingerprint=fingerprint, source=KEY_URL)
    root = tmp_path / "machine"
    world = World(root, archive, told, server, fetcher, tmp_path / "store", toml)
    world.put("proc/config.gz", gzip.compress(config(), mtime=0))
    world.put(f"boot/vmlinuz-{RELEASE}", image(RELEASE))
    world.put("etc/os-release", b'NAME="Flatcar"\nID=flatcar\nVERSION_ID=4593.2.5\n')
    return world


def test_the_running_kernel_is_pinned_by_kernel_orgs_source_and_its_own_configuration(world: World) -> None:
    made = world.pin()
    (kernel,) = made.lock.kernels
    assert (kernel.key, kernel.version, kernel.form) == (f"host/amd64:{RELEASE}", "6.1.176", "source")
    assert kernel.toolchain == "debian-12-source"
    assert [t.name for t in made.lock.toolchains] == ["debian-12-source"]
    tarball, own = kernel.headers
    assert (tarball.urls, tarball.trust) == ((f"{KERNEL_ORG}/v6.x/linux-6.1.176.tar.xz",), "vendor-sum")
    assert tarball.sha256 == hashlib.sha256(TARBALL).hexdigest()
    assert (own.local, own.trust) == (str(world.root / "proc/config.gz"), "this-machine")
    (boots,) = kernel.image
    assert boots.local == str(world.root / f"boot/vmlinuz-{RELEASE}")
    assert [r.os_tag for r in kernel.releases] == ["flatcar4593.2.5"]
    assert made.reports == []


def test_the_newest_driver_that_is_pinned_is_taken_unless_one_is_told_or_wished(world: World) -> None:
    newer = samples.driver("550.163.01")
    world.main = samples.a_lock(drivers=(*world.main.drivers, newer))
    assert world.pin().kernel.drivers == ("550.163.01",)
    assert world.pin(driver="535.261.03").kernel.drivers == ("535.261.03",)
    with pytest.raises(UsageError, match=r"pins no driver 580\.1 for amd64: it pins 535\.261\.03, "):
        world.pin(driver="580.1")
    world.toml += '[[driver]]\nexact = "535.261.03"\nreason = "a test"\nkernels = ["*-mine"]\n'
    assert world.pin().kernel.drivers == ("535.261.03",)


def test_the_same_machine_gives_the_same_bytes_even_when_the_archive_was_signed_anew(world: World) -> None:
    first = world.pin().lock
    world.archive.date = "Sun, 12 Jul 2026 10:00:00 UTC"
    world.archive.publish()
    assert lockfile.dump(world.pin(held=first).lock) == lockfile.dump(first)


def test_another_machines_files_can_be_named(world: World, tmp_path: Path) -> None:
    own, boots = tmp_path / "config.txt", tmp_path / "vmlinuz"
    own.write_bytes(config(local="-other"))
    boots.write_bytes(image("6.1.176-other"))
    kernel = world.pin(release="6.1.176-other", config=str(own), image=str(boots)).kernel
    assert (kernel.kernel, kernel.headers[1].local, kernel.image[0].local) == ("6.1.176-other", str(own), str(boots))
    assert [r.os_tag for r in kernel.releases] == ["linux0"], "what this machine is says nothing of the other"


def test_a_kernel_that_debian_packs_is_pinned_by_its_packages(world: World) -> None:
    world.main = samples.a_lock(kernels=())
    (kernel,) = world.pin(running="6.1.0-47-cloud-amd64").lock.kernels
    assert (kernel.key, kernel.form, kernel.toolchain) == ("host/amd64:6.1.0-47-cloud-amd64", "debs", "debian-12")
    assert {f.trust for f in (*kernel.headers, *kernel.image)} == {"signed-index"}


@pytest.mark.parametrize(
    ("place", "data"),
    [
        ("boot/config-6.1.176-mine", config()),
        ("lib/modules/6.1.176-mine/config", gzip.compress(config())),
        ("lib/modules/6.1.176-mine/build/.config", config()),
    ],
)
def test_without_proc_config_the_configuration_beside_the_kernel_is_taken(world: World, place: str, data: bytes) -> None:
    (world.root / "proc/config.gz").unlink()
    path = world.put(place, data)
    assert world.pin().kernel.headers[1].local == str(path)


def test_the_kernel_image_is_the_one_that_says_it_is_that_kernel(world: World) -> None:
    (world.root / f"boot/vmlinuz-{RELEASE}").unlink()
    world.put("boot/flatcar/vmlinuz-a", image("6.1.175-mine"))
    right = world.put("boot/flatcar/vmlinuz-b", image(RELEASE))
    assert world.pin().kernel.image[0].local == str(right)


def test_without_a_kernel_image_it_is_pinned_and_said_that_it_cannot_be_proved(world: World) -> None:
    (world.root / f"boot/vmlinuz-{RELEASE}").unlink()
    made = world.pin()
    assert made.kernel.image == ()
    assert made.reports == [
        f"no kernel image of {RELEASE} was found: without one to boot it cannot be proved: give --kernel-image"
    ]
    why = unprovable(made.kernel, Inputs(world.store, world.fetcher, lambda name: ()))
    assert why == "cannot be proved: no kernel image to boot: pin one beside the headers"


def test_a_configuration_with_modversions_is_pinned_and_fails_as_unprovable_with_what_would_help(world: World) -> None:
    world.put("proc/config.gz", gzip.compress(config(more="CONFIG_MODVERSIONS=y\n")))
    why = unprovable(world.pin().kernel, Inputs(world.store, world.fetcher, lambda name: ()))
    assert why.startswith("cannot be proved: MODVERSIONS is on in its config and there is no Module.symvers: headers with ")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (config("6.1.175"), r"config\.gz is the configuration of 6\.1\.175-mine, not of 6\.1\.176-mine"),
        (config("6.1.17"), r"config\.gz is the configuration of 6\.1\.17-mine, not of 6\.1\.176-mine"),
        (config("6.1.1760"), r"config\.gz is the configuration of 6\.1\.1760-mine, not of "),
        (config(local="-theirs"), r"config\.gz is the configuration of 6\.1\.176-theirs, not of 6\.1\.176-mine"),
        (config("6.1.176-coreos", local=""), r"is the configuration of 6\.1\.176-coreos, not of 6\.1\.176-mine"),
        (config(arch="powerpc"), r"is of a kernel for powerpc, which is no 64-bit x86 or ARM"),
        (config().replace(b"CONFIG_64BIT=y", b"# CONFIG_64BIT is not set"), r"is of a kernel for x86, which is no 64-bit"),
        (config(arch="arm64"), r"is of a kernel for arm64, this machine is amd64"),
        (b"CONFIG_PCI=y\n", r"is no kernel configuration: no line '# Linux/x86 6\.1\.176 Kernel Configuration'"),
        (bytes(range(256)), r"is no kernel configuration"),
    ],
)
def test_a_configuration_that_is_not_this_kernels_is_refused(world: World, data: bytes, reason: str) -> None:
    world.put("proc/config.gz", gzip.compress(data))
    with pytest.raises(IntegrityError, match=reason) as caught:
        world.pin()
    assert "\n" not in str(caught.value)


def test_a_configuration_that_unpacks_to_more_than_any_has_is_refused(world: World) -> None:
    world.put("proc/config.gz", gzip.compress(config() + b"#" * (17 << 20)))
    with pytest.raises(IntegrityError, match=r"config\.gz unpacks to more than 16777216 bytes"):
        world.pin()


def test_a_configuration_that_is_nowhere_is_told_with_where_it_comes_from(world: World) -> None:
    (world.root / "proc/config.gz").unlink()
    with pytest.raises(UsageError) as caught:
        world.pin()
    assert str(caught.value) == (
        f"no configuration of {RELEASE} on this machine (looked for /proc/config.gz, /boot/config-{RELEASE}, "
        f"/usr/boot/config-{RELEASE}): 'modprobe configs' may bring /proc/config.gz; else copy it from where that kernel was "
        "built: --config FILE"
    )


def test_the_running_kernels_proc_config_is_not_taken_for_another_kernel(world: World) -> None:
    with pytest.raises(UsageError, match=r"no configuration of 6\.1\.177"):
        world.pin(release="6.1.177")


def test_a_version_that_kernel_org_does_not_have_is_told_as_such(world: World) -> None:
    world.put("proc/config.gz", gzip.compress(config("6.1.999")))
    with pytest.raises(UpstreamDataError, match=r"kernel\.org has no linux-6\.1\.999\.tar\.xz: .* does not name it"):
        world.pin(running="6.1.999-mine")


def test_a_tarball_is_held_against_the_signed_list_of_sums(world: World, signing_key: Key) -> None:
    path = f"/cdn{KERNEL_ORG.removeprefix('https://cdn.kernel.org')}/v6.x"
    world.server.says(f"{path}/linux-6.1.176.tar.xz", file(b"another tarball"))
    with pytest.raises(IntegrityError, match="is not what the signed list of sums says: nothing of it is used"):
        world.pin()
    with Key() as other:
        world.server.says(f"{path}/sha256sums.asc", file(other.clearsign(b"0" * 64 + b"  linux-6.1.176.tar.xz\n")))
        with pytest.raises(IntegrityError, match=r"sha256sums\.asc: no key of ours signed it"):
            world.pin()


def test_without_a_fingerprint_of_kernel_org_nothing_is_pinned(world: World) -> None:
    world.toml = world.toml.split("[kernel-org]")[0]
    with pytest.raises(UsageError, match=r"no fingerprint of kernel\.org's signing key in \[kernel-org\] keys"):
        world.pin()


def test_a_kernel_that_versions_lock_pins_is_built_from_there(world: World) -> None:
    name = world.main.kernels[0].kernel
    with pytest.raises(UsageError, match=rf"versions\.lock pins {name} already: doit 'image:\*{name}\*' builds it"):
        world.pin(running=name)


@pytest.mark.parametrize(
    ("told", "error", "reason"),
    [
        ({"release": "latest"}, UsageError, r"'latest' is not a kernel release"),
        ({"release": "6.1.176\nRUN x"}, UsageError, r"is not a kernel release"),
        ({"config": "/nowhere/config"}, BadFileError, r"/nowhere/config: No such file or directory"),
        ({"image": "/nowhere/vmlinuz"}, BadFileError, r"/nowhere/vmlinuz: No such file or directory"),
        ({"image": "/etc/hostname"}, BadFileError, r"/etc/hostname is no kernel image that says which kernel it is, not of "),
        ({"config": "/"}, BadFileError, r"/: Is a directory"),
        ({"config": "/dev/null"}, BadFileError, r"/dev/null is no plain file"),
        ({"image": "/dev/zero"}, BadFileError, r"/dev/zero is no plain file"),
    ],
)
def test_what_cannot_be_meant_is_one_line(world: World, told: dict[str, str], error: type[PipelineError], reason: str) -> None:
    with pytest.raises(error, match=reason) as caught:
        world.pin(**told)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_an_image_of_another_kernel_is_refused(world: World, tmp_path: Path) -> None:
    (tmp_path / "vmlinuz").write_bytes(image("6.1.175-mine"))
    with pytest.raises(BadFileError, match=rf"is the kernel image of 6\.1\.175-mine, not of {RELEASE}"):
        world.pin(image=str(tmp_path / "vmlinuz"))


def test_a_file_whose_name_could_not_stand_in_a_build_is_refused(world: World, tmp_path: Path) -> None:
    (tmp_path / "my config").write_bytes(config())
    with pytest.raises(UsageError, match=r"'.*/my config' cannot be pinned by that name"):
        world.pin(config=str(tmp_path / "my config"))


def test_an_unpacked_kernel_says_its_release_in_its_greeting(tmp_path: Path) -> None:
    greeting = b"\x7fELF...Linux version 6.1.176-mine (a@b) (gcc)\n"
    (tmp_path / "vmlinux").write_bytes(greeting)
    (tmp_path / "Image.gz").write_bytes(gzip.compress(greeting))
    (tmp_path / "other").write_bytes(b"nothing")
    assert [kernel_image.release(tmp_path / name) for name in ("vmlinux", "Image.gz", "other")] == [RELEASE, RELEASE, None]


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("6.1.176", "6.1.176"),
        ("6.1.176-flatcar", "6.1.176"),
        ("4.14.96-coreos-r1", "4.14.96"),
        ("6.12-mine", "6.12.0"),
        ("6.12.0+", "6.12.0"),
        ("6.13.0-rc3-x", "6.13.0-rc3"),
        ("6.1.176.5", None),
    ],
)
def test_a_release_begins_with_its_version_of_kernel_org(release: str, version: str | None) -> None:
    assert kernel_org_version(release) == version


def test_a_pair_of_the_machine_is_chosen_as_image_host_and_keeps_the_plain_tag(world: World) -> None:
    both = host_lockfile.merged(world.main, world.pin().lock)
    plan = Plan(world.wanted, both, Renderer(world.wanted, both))
    (pair,) = plan.select(["image:host*"])
    assert pair.id == f"host/amd64:{RELEASE}-535.261.03"
    assert pair.tags[0] == f"{RELEASE}-535.261.03"
    assert "--set-str LOCALVERSION '-mine'" in pair.rendered.text
    assert len(plan.pairs) == len(Plan(world.wanted, world.main, Renderer(world.wanted, world.main)).pairs) + 1


def test_a_machine_that_goes_to_another_kernel_gets_another_recipe(world: World) -> None:
    """The original seed's cache trap, in the text: nothing but the kernel differs, and so do Dockerfile and recipe."""

    def pair(release: str) -> tuple[str, str]:
        world.put("proc/config.gz", gzip.compress(config(local=release.removeprefix("6.1.176"))))
        both = host_lockfile.merged(world.main, world.pin(running=release).lock)
        (found,) = Plan(world.wanted, both, Renderer(world.wanted, both)).select(["image:host*"])
        return found.recipe, found.rendered.text

    (one, text), (other, _) = pair(RELEASE), pair("6.1.176-next")
    assert one != other
    assert text.count(RELEASE) > 10
    assert "uname" not in text


@dataclass
class Edited:
    """A versions.host.lock on top of the samples' versions.lock."""

    root: Path
    good: Lock

    def says(self, **changes: object) -> str:
        """What is said of the file with these changes of its kernel."""
        (kernel,) = self.good.kernels
        made = msgspec.structs.replace(self.good, kernels=(msgspec.structs.replace(kernel, **changes),))
        return self.of(lockfile.dump(made))

    def of(self, data: bytes) -> str:
        (self.root / "versions.host.lock").write_bytes(data)
        with pytest.raises(BadFileError) as caught:
            _ = Workspace(self.root).lock
        assert caught.value.exit_status == 3
        return str(caught.value)


@pytest.fixture
def edited(world: World, tmp_path: Path) -> Edited:
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "versions.lock").write_bytes(lockfile.dump(world.main))
    good = world.pin().lock
    (root / "versions.host.lock").write_bytes(lockfile.dump(good))
    assert RELEASE in [k.kernel for k in Workspace(root).lock.kernels]
    return Edited(root, good)


def test_versions_host_lock_is_read_as_strictly_as_the_other(edited: Edited) -> None:
    assert "versions.lock does not pin driver 580.95.05 any more: 'doit update --host'" in edited.says(drivers=("580.95.05",))
    assert "debian/amd64:6.1.176-mine is no machine's own kernel" in edited.says(os="debian")
    assert "no toolchain debian-13 for amd64" in edited.says(toolchain="debian-13")
    assert "'6.1 x' is not a kernel release" in edited.of(lockfile.dump(edited.good).replace(b'"6.1.176-mine"', b'"6.1 x"', 1))
    assert "versions.lock pins 6.1.0-50-cloud-amd64 itself by now" in edited.says(kernel="6.1.0-50-cloud-amd64")
    assert "versions.host.lock: Input data was truncated" in edited.of(b'{"schema"')
    assert "unknown field `host`" in edited.of(b'{"schema": 1, "host": {}}')
    everything = msgspec.structs.replace(edited.good, drivers=samples.a_lock().drivers)
    assert "it holds more than kernels and toolchains" in edited.of(lockfile.dump(everything))


def test_a_file_of_one_machine_is_refused_in_versions_lock(world: World) -> None:
    host = world.pin().lock
    both = host_lockfile.merged(world.main, host)
    with pytest.raises(BadFileError, match="config is a file of one machine, which no other has"):
        lockfile.parse(lockfile.dump(both))


def test_a_pinned_file_that_the_store_lost_is_taken_from_the_machine_again_and_only_as_it_was(world: World) -> None:
    own = world.pin().kernel.headers[1]
    inputs = Inputs(world.store, world.fetcher, lambda name: ())
    shutil.rmtree(world.store)
    assert hashlib.sha256(inputs.path(own).read_bytes()).hexdigest() == own.sha256
    shutil.rmtree(world.store)
    world.put("proc/config.gz", gzip.compress(config(more="# x")))
    with pytest.raises((BadFileError, IntegrityError), match=r"config\.gz"):
        inputs.path(own)


def test_the_command_pins_tells_and_leaves_versions_lock_alone(world: World, tmp_path: Path) -> None:
    project = SmallProject(
        tmp_path / "project",
        world.main,
        world.toml,
        DRIVER_ARCHIVES=world.told,
        DRIVER_MIRRORS=str(tmp_path / "mirrors.toml"),
        NO_PROXY="127.0.0.1",
    )
    before = (project.root / "versions.lock").read_bytes()
    own, boots = world.put("config", config()), world.put("vmlinuz", image(RELEASE))
    words = ("update", "--host", "--kernel-release", RELEASE, "--config", str(own), "--kernel-image", str(boots))
    done = project.doit(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"versions.host.lock: {RELEASE} with 535.261.03, by linux-6.1.176.tar.xz and {own}; proved on {boots}\n"
        "to build it: doit 'image:host*'\n"
    )
    as_told = done.stdout.replace(str(own), "/proc/config.gz").replace(str(boots), f"/boot/vmlinuz-{RELEASE}")
    assert f"$ doit update --host\n{as_told}$ doit 'image:host*'\n" in README.read_text(), "the README's sample"
    again = json.loads(project.doit(*words, "--json").stdout)
    assert (again["kernel"], again["changed"], again["written"]) == (f"host/amd64:{RELEASE}", False, True)
    assert (project.root / "versions.lock").read_bytes() == before
    assert f"image:host/amd64:{RELEASE}-535.261.03" in project.doit("list", "--all").stdout
    wrong = project.doit("update", "--config", str(own))
    assert (wrong.returncode, wrong.stderr) == (3, "doit: --config goes with --host: see 'doit help update'\n")
    nowhere = project.doit("update", "--host", "--kernel-release", "6.1.177")
    assert nowhere.returncode == 3
    assert nowhere.stderr.startswith("doit: no configuration of 6.1.177 on this machine")
    assert len(nowhere.stderr.splitlines()) == 1


def test_a_kernel_image_that_could_not_be_read_is_named(world: World) -> None:
    os.truncate(world.root / f"boot/vmlinuz-{RELEASE}", 1 << 30)
    (report,) = world.pin().reports
    assert f"vmlinuz-{RELEASE} has more than 536870912 bytes: that is no kernel image" in report


def test_a_boot_folder_that_is_roots_alone_is_said_and_no_traceback(world: World) -> None:
    """As on hardened hosts: what lies there is unknown, what lies elsewhere still counts."""
    (world.root / "boot").chmod(0)
    user = os.geteuid()
    with contextlib.ExitStack() as after:
        after.callback((world.root / "boot").chmod, 0o755)
        if not user:
            after.callback(os.seteuid, 0)
            os.seteuid(65534)
        machine = this_machine(root=world.root, running=RELEASE, machine="x86_64")
    assert machine.image is None
    assert f"vmlinuz-{RELEASE}: Permission denied" in machine.unread
    assert f"vmlinuz-{RELEASE}: Permission denied" in no_config(machine).message
