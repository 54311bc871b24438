"""Synthetic hosts for ``nvidia-driver-host``: a root of plain files, and a stand-in for podman and docker over two folders.

The stand-in keeps a registry (folder ``registry``) and a store (folder ``store``), speaks the few words of the two engines that
the script uses with the engines' own messages, and does in the root what ``nvidia-driver`` of an image would do.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pytest

from pipeline.outcomes import index as indexes
from pipeline.outcomes.index import Entry, Index

PROGRAM: Final = Path(__file__).resolve().parents[1] / "host/nvidia-driver-host"
KERNEL: Final = "6.1.0-47-cloud-amd64"
NEXT: Final = "6.1.0-50-cloud-amd64"
A, B, OLD = "535.261.03", "535.309.01", "535.216.03"
REPOSITORY: Final = "registry.example/gpu/driver"
SHELLS: Final = {"dash": ["dash"], "busybox": ["busybox", "sh"]}

# A test starts the stand-in a dozen times: it starts nothing itself for what the shell can do.
ENGINE: Final = r"""
log() { echo "$*" >> "$WORLD/log"; }
line() { if [ -e "$2" ]; then read -r "$1" < "$2" || :; else eval "$1="; return 1; fi; }
show() { [ ! -e "$1" ] || while read -r shown || [ -n "$shown" ]; do echo "$shown"; done < "$1"; }
hex() { case $1 in *@sha256:*) found=${1##*:} ;; */*:*) line found "$WORLD/store/tags/${1##*:}" || : ;; *) found=$1 ;; esac; }
self=${0##*/}
while [ "$1" = --config ]; do log "login $(cat "$2/config.json")"; shift 2; done
word=$1; shift
echo "$word" >> "$WORLD/words"
case $word in
version) [ ! -e "$WORLD/no-engine" ] || { echo "Cannot connect to the Docker daemon at unix:///d.sock" >&2; exit 1; } ;;
info) show "$WORLD/insecure" ;;
pull)
  options=''
  while [ $# -gt 1 ]; do options="$options $1"; shift; done
  case $1 in --*) echo "unknown" >&2; exit 125 ;; esac
  log "pull $1$options"
  [ ! -e "$WORLD/slow" ] || sleep "$(cat "$WORLD/slow")"
  if [ -e "$WORLD/refusal" ]; then cat "$WORLD/refusal" >&2; exit 125; fi
  if [ -e "$WORLD/down" ]; then
    left=$(cat "$WORLD/down"); [ "$left" = 1 ] && rm "$WORLD/down" || echo $((left - 1)) > "$WORLD/down"
    echo "Error: pinging container registry: dial tcp 192.0.2.1:443: connect: connection refused" >&2; exit 125
  fi
  tag=${1##*:}
  case $1 in *@sha256:*) found=$tag ;; *) line found "$WORLD/registry/tags/$tag" || found=none ;; esac
  [ -d "$WORLD/registry/images/$found" ] || { echo "Error: reading manifest $tag in ${1%:*}: manifest unknown" >&2; exit 125; }
  [ ! -e "$WORLD/store/images/$found" ] || rm -rf "$WORLD/store/images/$found"
  cp -R "$WORLD/registry/images/$found" "$WORLD/store/images/$found"
  case $1 in *@*) ;; *) echo "$found" > "$WORLD/store/tags/${1##*:}" ;; esac
  if [ "$self" = docker ]; then echo "Digest: sha256:$found"; else echo "$found"; fi ;;
image)
  [ "$1 $2" = "inspect --format" ] || exit 125
  hex "$4"; dir=$WORLD/store/images/$found
  [ -n "$found" ] && [ -d "$dir" ] || { echo "Error: $4: image not known" >&2; exit 125; }
  case $3 in
  '{{.Id}}') echo "$found" ;;
  '{{.Digest}}') echo "sha256:$found" ;;
  *RepoDigests*) line repository "$dir/repository"; echo "$repository@sha256:$found " ;;
  *Labels*) name=${3##*nvidia.}; show "$dir/labels/${name%%\"*}" ;;
  esac ;;
images) for dir in "$WORLD"/store/images/*; do [ ! -e "$dir/labels/kernel" ] || echo "${dir##*/}"; done ;;
create) hex "$1"; echo "$found" ;;
cp) cp "$WORLD/store/images/${1%%:*}/files${1#*:}" "$2" ;;
rm) rm -f "$WORLD/left" ;;
rmi) for last; do :; done; log "rmi $last"; rm -rf "$WORLD/store/images/$last" ;;
run)
  options=''
  while :; do
    case $1 in
    --rm) shift ;;
    --env) options="$options $2"; shift 2 ;;
    --entrypoint) entry=$2; shift 2 ;;
    --*) shift 2 ;;
    *) break ;;
    esac
  done
  [ ! -e "$WORLD/no-engine" ] || { echo "Cannot connect to the Docker daemon at unix:///d.sock" >&2; exit 125; }
  hex "$1"; export dir="$WORLD/store/images/$found" version options
  [ -d "$dir" ] || { echo "Error: $1: image not known" >&2; exit 125; }
  if [ -e "$WORLD/left" ]; then echo 'Error: the container name "nvidia-driver-host" is already in use' >&2; exit 125; fi
  log container
  [ ! -e "$dir/torn" ] || { echo "Error: layer not known" >&2; exit 125; }
  line version "$dir/labels/driver" || :
  shift
  PATH=$WORLD/inside:$PATH ${entry:-nvidia-driver} "$@" ;;
*) echo "stand-in engine: no $word" >&2; exit 125 ;;
esac
"""

INSIDE: Final = r"""
told=''
log() { echo "$*" >> "$WORLD/log"; }
for option in $options; do case $option in HOST_ROOT=*) ;; *) told="$told $option" ;; esac; done
log "run $version $1$told"
if [ -e "$dir/answers/$1" ]; then
  { read -r status; read -r text; } < "$dir/answers/$1"; echo "nvidia-driver: $text" >&2; exit "$status"
fi
case $1 in
  load)
    mkdir -p "$ROOT/sys/module/nvidia"; echo "$version" > "$ROOT/sys/module/nvidia/version"
    echo "nvidia-driver: driver $version is ready: 1 GPU(s)" >&2 ;;
  unload) rm -rf "$ROOT/sys/module/nvidia" ;;
  volume) mkdir -p "$ROOT/var/lib/nvidia-docker/volumes/nvidia_driver/$version/host-bin" ;;
  cdi) mkdir -p "$ROOT/run/cdi"; echo "$version" > "$ROOT/run/cdi/nvidia.yaml" ;;
esac
"""

NOTED: Final = """echo "${0##*/} $*" >> "$WORLD/log" """


class Host:
    """A Debian host with one GPU, a registry with an image for its kernel, and the stand-in engine as podman and docker."""

    def __init__(self, root: Path, shell: list[str]) -> None:
        self.root, self.shell = root / "root", shell
        self.world, self.bin = root / "world", root / "bin"
        for folder in ("registry/images", "registry/tags", "store/images", "store/tags"):
            (self.world / folder).mkdir(parents=True)
        for name in ("podman", "docker"):
            self.program(name, ENGINE)
        self.program("../world/inside/nvidia-driver", INSIDE)
        for name in ("systemctl", "grub-set-default", "mount", "umount"):
            self.program(name, NOTED)
        self.program("sleep", 'echo "sleep $*" >> "$WORLD/sleeps"')
        self.environment: dict[str, str] = {}
        self.entries: list[Entry] = []
        self.serial = 1
        self.write("proc/sys/kernel/osrelease", KERNEL)
        self.write("etc/os-release", 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"')
        self.write("sys/bus/pci/devices/0000:00:06.0/vendor", "0x10de")
        self.write("sys/bus/pci/devices/0000:00:06.0/class", "0x030200")
        self.settings(DRIVER_REGISTRY="registry.example/gpu", DRIVER_VERSION=A)
        self.a = self.publish(KERNEL, A)

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n" if text else "")
        return file

    def read(self, path: str) -> str:
        return (self.root / path).read_text().strip()

    def program(self, name: str, text: str) -> None:
        file = self.bin / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{text.strip()}\n")
        file.chmod(0o755)

    def settings(self, **values: str) -> None:
        self.kept = {**getattr(self, "kept", {}), **values}
        self.write("etc/nvidia-driver/driver.env", "\n".join(f'{name}="{value}"' for name, value in self.kept.items()))

    def no_gpu(self) -> None:
        shutil.rmtree(self.root / "sys/bus/pci/devices/0000:00:06.0")

    # The registry

    def image(self, kernel: str, driver: str, build: str = "") -> str:
        """Puts an image into the registry, under no tag; its digest."""
        name = hashlib.sha256(f"{kernel} {driver} {build}".encode()).hexdigest()
        folder = self.world / "registry/images" / name
        (folder / "labels").mkdir(parents=True, exist_ok=True)
        (folder / "answers").mkdir(exist_ok=True)
        for label, text in (("labels/kernel", kernel), ("labels/driver", driver), ("repository", REPOSITORY)):
            (folder / label).write_text(text + "\n")
        return f"sha256:{name}"

    def tag(self, digest: str, *tags: str) -> None:
        for tag in tags:
            (self.world / "registry/tags" / tag).write_text(digest.removeprefix("sha256:") + "\n")

    def publish(self, kernel: str, driver: str, build: str = "", *, qualified: bool = True) -> str:
        digest = self.image(kernel, driver, build)
        text = kernel.replace("+", "_")
        tags = (f"{text}-{driver}", *((f"{driver}-{text}-debian12",) if qualified else ()))
        self.tag(digest, *tags)
        self.entries = [entry for entry in self.entries if (entry.kernel, entry.driver) != (kernel, driver)]
        self.note(kernel, driver, "built", digest=digest, tags=tags)
        return digest

    def withdraw(self, kernel: str, driver: str) -> None:
        for tag in (f"{kernel}-{driver}", f"{driver}-{kernel}-debian12"):
            (self.world / "registry/tags" / tag).unlink(missing_ok=True)

    def note(self, kernel: str, driver: str, outcome: Any, **values: Any) -> None:
        self.entries.append(Entry(os="debian", arch="amd64", kernel=kernel, driver=driver, outcome=outcome, **values))

    def publish_index(self, *, serial: int | None = None, key: Path | None = None, alter: bool = False) -> bytes:
        """driver:index as the pipeline writes it, signed by openssl where a key is given."""
        self.serial = serial or self.serial + 1
        data = indexes.dump(Index(serial=self.serial, generated="2026-11-24T12:00:00Z", pairs=tuple(self.entries)))
        digest = self.image("-", "-", f"index {self.serial} {len(self.entries)} {alter} {key}")
        folder = self.world / "registry/images" / digest.removeprefix("sha256:")
        (folder / "labels/kernel").unlink()
        (folder / "files").mkdir(exist_ok=True)
        (folder / "files/index.json").write_bytes(data)
        if key:
            words = ["openssl", "dgst", "-sha256", "-sign", str(key), "-out", str(folder / "files/index.json.sig")]
            subprocess.run(words, input=data, check=True)
        if alter:
            (folder / "files/index.json").write_bytes(data.replace(b'"arch":"amd64"', b'"arch": "amd64"', 1))
        self.tag(digest, "index")
        return data

    def down(self, tries: int = 1_000_000) -> None:
        (self.world / "down").write_text(f"{tries}\n")

    def up(self) -> None:
        (self.world / "down").unlink(missing_ok=True)

    def answers(self, digest: str, word: str, status: int, text: str) -> None:
        """What ``nvidia-driver`` of this image says."""
        for place in ("registry", "store"):
            folder = self.world / place / "images" / digest.removeprefix("sha256:")
            if folder.is_dir():
                (folder / "answers" / word).write_text(f"{status}\n{text}\n")

    def stored(self) -> set[str]:
        return {f"sha256:{path.name}" for path in (self.world / "store/images").iterdir()}

    # The host

    def env(self) -> dict[str, str]:
        tmp = self.world / "tmp"
        tmp.mkdir(exist_ok=True)
        sleep = str(self.bin / "sleep")  # by its path: a busybox prefers its own
        own = {
            "SLEEP": sleep,
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "ROOT": str(self.root),
            "WORLD": str(self.world),
            "TMPDIR": str(tmp),
        }
        return own | self.environment

    def run(self, *words: str, status: int = 0, given: bytes | None = None) -> str:
        """Runs the script, checks its exit status, and returns what it said."""
        done = subprocess.run(
            [*self.shell, str(PROGRAM), *words], env=self.env(), capture_output=True, timeout=120, check=False, input=given or b""
        )
        said = done.stderr.decode()
        assert done.returncode == status, (done.returncode, done.stdout, said)
        self.out = done.stdout.decode()
        assert list((self.world / "tmp").iterdir()) == [], "nothing is left in /tmp"
        return said

    def log(self, *words: str) -> list[str]:
        """What was asked of the engine and the system, in order; of these words where some are given."""
        file = self.world / "log"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in lines if not words or line.split()[0] in words]

    def words(self) -> list[str]:
        """Every word that the engine was started with, in order."""
        file = self.world / "words"
        return file.read_text().split() if file.exists() else []

    def forget(self) -> None:
        """A fresh log."""
        for name in ("log", "words"):
            (self.world / name).unlink(missing_ok=True)

    def reboot(self, kernel: str = KERNEL) -> None:
        """What a boot clears: /run and the kernel's modules."""
        for folder in ("run", "sys/module"):
            shutil.rmtree(self.root / folder, ignore_errors=True)
        self.write("proc/sys/kernel/osrelease", kernel)
        self.forget()

    @property
    def loaded(self) -> str:
        file = self.root / "sys/module/nvidia/version"
        return file.read_text().strip() if file.exists() else ""

    def stage(self, kernel: str = NEXT) -> None:
        """A newer kernel in /boot."""
        for name in (KERNEL, kernel):
            self.write(f"boot/vmlinuz-{name}", "a kernel")


def host_of(root: Path, shell: str) -> Host:
    """A host whose script runs under this shell; skips where it is not installed."""
    words = SHELLS[shell]
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    return Host(root, words)


class FleetServer:
    """The fleet's own FleetLock server: answers what it is told, keeps what it was asked."""

    def __init__(self, *answers: tuple[int, bytes]) -> None:
        self.answers, self.asked = list(answers), list[bytes]()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}/fleet/"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        for code, body in self.answers:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(10)
                data = b""
                while b"\r\n\r\n" not in data or len(data.split(b"\r\n\r\n", 1)[1]) < _length(data):
                    data += connection.recv(65536)
                self.asked.append(data)
                head = f"HTTP/1.1 {code} Word\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                connection.sendall(head.encode() + body)

    def __enter__(self) -> FleetServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def _length(data: bytes) -> int:
    head = data.split(b"\r\n\r\n", 1)[0].lower().splitlines()
    return next((int(line.split(b":")[1]) for line in head if line.startswith(b"content-length:")), 0)


def wait_until(true: Any, seconds: float = 10) -> None:
    """Waits for a condition that another thread brings about."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    assert true()


def make_key(folder: Path, name: str = "key") -> tuple[Path, Path]:
    """An ECDSA P-256 key pair as openssl makes it: (private, public), both PEM."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", private],
        check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return private, public


def request(step: str, body: str, *, method: str = "POST", headers: Iterable[str] = ("fleet-lock-protocol: true",)) -> bytes:
    """A FleetLock request as zincati sends it: no Content-Type for JSON."""
    lines = [f"{method} /v1/{step} HTTP/1.1", "Host: 127.0.0.1:9510", *headers, f"content-length: {len(body)}", "", body]
    return "\r\n".join(lines).encode()
