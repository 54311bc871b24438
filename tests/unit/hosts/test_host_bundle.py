"""``doit host``: what it writes, held to Ignition's rules and to Ignition's own validator."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.commands.host import write
from pipeline.hosts import host_bundle
from pipeline.hosts.host_bundle import RUNTIMES, VARIANTS, Bundle, HostSettings
from tests import samples
from tests.host_machine import make_key
from tests.small_project import SmallProject

ROOT = Path(__file__).parents[3]
SETTINGS = HostSettings(registry="registry.example/gpu", driver="535.261.03", fallback="535.216.03 535")
ALL = [(system, runtime) for system, runtimes in RUNTIMES.items() for runtime in runtimes]
# Unit types, and that what is enabled has an [Install] section: coreos/ignition config/shared/validations/unit.go.
UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]+\.(service|socket|device|mount|automount|swap|target|path|timer|snapshot|slice|scope)")


def bundle(system: str, runtime: str, settings: HostSettings = SETTINGS) -> Bundle:
    return host_bundle.bundle(ROOT / "host", system, runtime, settings)


@pytest.mark.parametrize(("system", "runtime"), [pair for pair in ALL if pair[0] in VARIANTS])
def test_ignition_follows_the_rules_of_its_specification(system: str, runtime: str) -> None:
    document = json.loads(json.dumps(host_bundle.ignition(bundle(system, runtime))))
    assert document["ignition"] == {"version": "3.4.0"}
    assert set(document) <= {"ignition", "storage", "systemd", "kernelArguments"}
    paths = [file["path"] for file in document["storage"]["files"]]
    assert len(set(paths)) == len(paths)
    for file in document["storage"]["files"]:
        assert set(file) == {"path", "mode", "overwrite", "contents"}
        assert os.path.normpath(file["path"]) == file["path"]
        assert file["path"].startswith("/")
        assert not any(other.startswith(file["path"] + "/") for other in paths), "no file is another's directory"
        assert 0 <= file["mode"] <= 0o7777
        head, data = file["contents"]["source"].split(",", 1)
        assert head == "data:;base64"
        assert file["contents"]["verification"]["hash"] == f"sha512-{hashlib.sha512(base64.b64decode(data)).hexdigest()}"
    names = [unit["name"] for unit in document["systemd"]["units"]]
    assert len(set(names)) == len(names)
    for unit in document["systemd"]["units"]:
        assert UNIT.fullmatch(unit["name"])
        assert set(unit) <= {"name", "enabled", "mask", "contents", "dropins"}
        if unit.get("enabled"):
            assert "[Install]" in unit["contents"]
        for drop_in in unit.get("dropins", []):
            assert drop_in["name"].endswith(".conf")
            assert drop_in["contents"]


@pytest.mark.parametrize(("system", "runtime"), [pair for pair in ALL if pair[0] in VARIANTS])
def test_ignitions_own_validator_takes_it(system: str, runtime: str, tmp_path: Path) -> None:
    if shutil.which("ignition-validate") is None:
        pytest.skip("ignition-validate is not installed (./doit.sh test installs it)")
    document = host_bundle.ignition(bundle(system, runtime))
    # Debian 12's validator ends at 3.3.0, which has all that is used here.
    document["ignition"]["version"] = "3.3.0"
    (tmp_path / "config.ign").write_text(json.dumps(document))
    done = subprocess.run(["ignition-validate", tmp_path / "config.ign"], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    document["systemd"]["units"][0]["name"] = "nvidia-driver"
    (tmp_path / "config.ign").write_text(json.dumps(document))
    assert subprocess.run(["ignition-validate", tmp_path / "config.ign"], capture_output=True).returncode == 1, "it does look"


@pytest.mark.parametrize(("system", "runtime"), [pair for pair in ALL if pair[0] in VARIANTS])
def test_butane_names_the_same_files_and_units_as_ignition(system: str, runtime: str, tmp_path: Path) -> None:
    made = bundle(system, runtime)
    text, document = host_bundle.butane(made), host_bundle.ignition(made)
    assert re.findall(r"^    - path: (.*)$", text, re.MULTILINE) == [file["path"] for file in document["storage"]["files"]]
    assert re.findall(r'^    - name: "(.*)"$', text, re.MULTILINE) == [unit["name"] for unit in document["systemd"]["units"]]
    assert text.count("enabled: true") == sum(unit.get("enabled", False) for unit in document["systemd"]["units"])
    variant, version = VARIANTS[system]
    assert f"variant: {variant}\nversion: {version}\n" in text
    (tmp_path / "host").symlink_to(ROOT / "host")
    folder = tmp_path / write(made, tmp_path)
    for local in re.findall(r'(?:local: |contents_local: "?)([^"}\n]+)', text):
        assert (folder / "files" / local).is_file(), local


def units(made: Bundle) -> dict[str, Any]:
    return {unit.name: unit for unit in made.units}


def test_flatcars_own_driver_service_is_masked_and_its_reboots_wait() -> None:
    made = units(bundle("flatcar", "docker"))
    assert made["nvidia.service"].masked
    assert "ConditionPathExists=/run/nvidia-driver/may-reboot" in made["locksmithd.service"].drop_in[1]
    assert bundle("flatcar", "docker").files[0].path == "/opt/bin/nvidia-driver-host"


@pytest.mark.parametrize(
    ("system", "place"), [("flatcar", "/opt/bin"), ("fedora-coreos", "/usr/local/bin"), ("debian", "/usr/local/bin")]
)
def test_nvidia_smi_lies_where_that_os_lets_programs_be_added_and_starts_the_loaded_drivers(system: str, place: str) -> None:
    (file,) = [file for file in bundle(system, "podman").files if file.path.endswith("/nvidia-smi")]
    assert (file.path, file.mode) == (f"{place}/nvidia-smi", 0o755)
    assert "/var/lib/nvidia-driver/current/host-bin/nvidia-smi" in file.text


def test_zincati_asks_on_loopback_and_nouveau_is_kept_off_from_the_initramfs_on() -> None:
    made = bundle("fedora-coreos", "podman")
    assert "ListenStream=127.0.0.1:9510" in units(made)["nvidia-driver-fleetlock.socket"].text
    (zincati,) = [file.text for file in made.files if "zincati" in file.path]
    assert 'strategy = "fleet_lock"' in zincati
    assert re.search(r'base_url = "http://127.0.0.1:9510/"', zincati)
    assert "modprobe.blacklist=nouveau" in made.kernel_arguments


@pytest.mark.parametrize(("system", "runtime"), ALL)
def test_no_name_of_ours_is_one_that_flatcar_deletes_or_takes(system: str, runtime: str) -> None:
    made = bundle(system, runtime)
    for file in made.on_disk:
        assert not Path(file.path).name.startswith("flatcar-")
        assert not file.path.startswith("/opt/nvidia/")
        assert not file.path.startswith("/usr/") or file.path.startswith("/usr/local/bin/"), "the rest of /usr is read-only"
        assert "@BIN@" not in file.text


@pytest.mark.parametrize(("system", "runtime"), ALL)
def test_systemd_knows_every_line_of_every_unit(system: str, runtime: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    for unit in bundle(system, runtime).units:
        if unit.text:
            (tmp_path / unit.name).write_text(re.sub(r"^(Exec\w+)=/\S+", r"\1=/bin/true", unit.text, flags=re.MULTILINE))
    names = [str(path) for path in tmp_path.iterdir() if "@" not in path.name]
    env = {**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *names], capture_output=True, text=True, env=env)
    ours = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "nvidia" in line]
    assert ours == []


def test_container_linux_gets_no_line_that_its_systemd_refuses() -> None:
    text = units(bundle("container-linux", "docker"))["nvidia-driver.service"].text
    assert "Type=oneshot" in text
    assert "Restart" not in text


@pytest.mark.parametrize("shell", [["dash"], ["busybox", "sh"], ["bash"]])
def test_the_one_script_of_a_host_works_by_itself(tmp_path: Path, shell: list[str]) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed")
    place = tmp_path / "nvidia-driver-host"
    place.write_text(host_bundle.script(ROOT / "host"))
    done = subprocess.run([*shell, str(place), "help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "nvidia-driver-host boot" in done.stdout
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/osrelease").write_text("6.1.0\n")
    done = subprocess.run([*shell, str(place), "boot"], capture_output=True, text=True, env={**os.environ, "ROOT": str(tmp_path)})
    assert (done.returncode, "DRIVER_REGISTRY is not set" in done.stderr) == (2, True)


def test_shellcheck_finds_nothing_in_what_a_host_gets(tmp_path: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed (./doit.sh test installs it)")
    shutil.copy(ROOT / "host/.shellcheckrc", tmp_path)
    template = (ROOT / "host/templates/install.sh").read_text()
    texts = {}  # one script may be that of several hosts
    for system, runtime in ALL:
        made = bundle(system, runtime)
        texts[made.files[0].text] = f"nvidia-driver-host.{system}-{runtime}"
        texts[host_bundle.installer(made, template)] = f"install.sh.{system}-{runtime}"
    for text, name in texts.items():
        (tmp_path / name).write_text(text)
    done = subprocess.run(["shellcheck", *texts.values()], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def project(tmp_path: Path) -> SmallProject:
    made = SmallProject(tmp_path / "checkout", samples.a_lock())
    shutil.copytree(ROOT / "host", made.root / "host", dirs_exist_ok=True)
    return made


def test_the_command_writes_a_folder_for_each_os_and_runtime_and_says_the_one_line(project: SmallProject, tmp_path: Path) -> None:
    _, public = make_key(tmp_path)
    said = project.doit(
        "host", "--registry", "ghcr.io/acme", "--driver", "535", "--key", str(public), DRIVER_REGISTRY="localhost:1"
    )
    assert said.returncode == 0, said.stderr
    for system, runtime in ALL:
        assert f"build/host/{system}-{runtime}: " in said.stdout
        folder = project.root / f"build/host/{system}-{runtime}"
        settings = (folder / "files/etc/nvidia-driver/driver.env").read_text()
        assert 'DRIVER_REGISTRY="ghcr.io/acme"' in settings
        assert 'DRIVER_VERSION="535"' in settings
        assert 'DRIVER_KEY="/etc/nvidia-driver/driver.pub"' in settings
        assert (folder / "files/etc/nvidia-driver/driver.pub").read_text() == public.read_text()
        assert (folder / "config.ign").exists() == (system in VARIANTS)
    assert "ssh HOST sudo sh < build/host/debian-podman/install.sh" in said.stdout


@pytest.mark.parametrize("registry", ["localhost:5000", "http://127.0.0.1:5000/drivers", "[::1]:5000"])
def test_a_registry_that_every_host_would_look_for_on_itself_is_remarked(project: SmallProject, registry: str) -> None:
    done = project.doit("host", "debian", DRIVER_REGISTRY=registry)
    assert done.returncode == 0
    assert f"hosts will pull from {registry}, each from itself" in done.stderr
    settings = project.root / "build/host/debian-podman/files/etc/nvidia-driver/driver.env"
    assert f'DRIVER_REGISTRY="{registry}"' in settings.read_text()
    assert len(done.stderr.splitlines()) == 1


def test_a_driver_that_the_lock_does_not_pin_is_remarked(project: SmallProject) -> None:
    (pinned,) = {driver.version for driver in samples.a_lock().drivers}
    branch = pinned.partition(".")[0]
    for words, unknown in (
        (("--driver", branch, "--fallback", pinned), []),
        (("--driver", "999", "--fallback", f"{branch} {pinned}.1"), ["999", f"{pinned}.1"]),
        (("--driver", branch[:-1]), [branch[:-1]]),
    ):
        done = project.doit("host", "--registry", "ghcr.io/acme", *words, "debian")
        assert done.returncode == 0
        told = [f"doit: versions.lock pins no driver {name} ({pinned}), so" for name in unknown]
        assert [line[: len(start)] for line, start in zip(done.stderr.splitlines(), told, strict=True)] == told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("gentoo",), "no OS 'gentoo'"),
        (("--runtime", "podman", "container-linux"), "container-linux has no runtime 'podman'"),
        (("--runtime", "lxc"), "no runtime 'lxc': one of docker, podman"),
        (("debian", "--driver", "535"), "option --driver stands behind a word: options come first"),
        (("--driver", "latest"), "--driver 'latest'"),
        (("--registry", "a b"), "--registry 'a b'"),
        (("--registry", "[::1"), "--registry '[::1'"),
        (("--key", "/none"), "--key /none cannot be read"),
    ],
)
def test_a_wrong_word_is_one_line_and_status_3(project: SmallProject, words: tuple[str, ...], said: str) -> None:
    done = project.doit("host", *words)
    assert done.returncode == 3
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
