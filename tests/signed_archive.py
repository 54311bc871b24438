"""A package archive signed by a throwaway key, on disk and on loopback: synthetic packages, real gpg, real hashes.

archive = SignedArchive(tmp_path, key)
archive.add("bookworm", "main", "busybox", "1:1.35-4")
archive.publish()
with Served(archive.root) as server: ...   # {server.url}/debian, {server.url}/debian-security
"""

from __future__ import annotations

import hashlib
import lzma
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

COMPONENTS = ("main", "contrib", "non-free", "non-free-firmware")
ARCHIVES = {"bookworm": "debian", "bookworm-security": "debian-security"}
DATE = "Sat, 11 Jul 2026 10:16:37 UTC"


class Key:
    """A signing key in a GnuPG home of its own under /tmp (socket paths are short). A context manager.

    ``at`` is the day the key believes to live in, as gpg writes it; it then expires after a day.
    """

    def __init__(self, at: str = "") -> None:
        self.home = Path(tempfile.mkdtemp(prefix="gk", dir="/tmp"))
        self.keyring = self.home / "keyring.gpg"
        self._time = ["--faked-system-time", f"{at}!"] if at else []
        try:
            self._gpg("--quick-generate-key", "Synthetic <a@example.com>", "ed25519", "sign", "1d" if at else "never")
            self.keyring.write_bytes(self._gpg("--export"))
        except BaseException:
            self.close()
            raise

    def _gpg(self, *words: str, data: bytes = b"") -> bytes:
        command = ["gpg", "--batch", "--quiet", "--no-tty", "--pinentry-mode", "loopback", "--passphrase", ""]
        command += ["--homedir", str(self.home), *self._time, *words]
        done = subprocess.run(command, input=data, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def clearsign(self, text: bytes) -> bytes:
        """``text`` as an InRelease file."""
        return self._gpg("--clearsign", data=text)

    def clearsign_with(self, other: Key, text: bytes) -> bytes:
        """``text`` signed by this key and by ``other``, as an archive does with its old and its new key."""
        secret = other._gpg("--export-secret-keys")
        self._gpg("--import", data=secret)
        listed = self._gpg("--list-secret-keys", "--with-colons").decode().splitlines()
        prints = [line.split(":")[9] for line in listed if line.startswith("fpr:")]
        users = [word for one in prints for word in ("--local-user", one)]
        return self._gpg(*users, "--clearsign", data=text)

    def signature(self, signed: bytes) -> bytes:
        """The bare signature in an InRelease file, without its armour."""
        return self._gpg("--dearmor", data=signed[signed.index(b"-----BEGIN PGP SIGNATURE") :])

    def armoured(self, signatures: bytes) -> bytes:
        """Bare signatures as they stand below a signed text."""
        return self._gpg("--enarmor", data=signatures).replace(b"PGP ARMORED FILE", b"PGP SIGNATURE")

    def close(self) -> None:
        """End the agent that gpg started in this home, and drop the home."""
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], capture_output=True)
        shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@dataclass
class SignedArchive:
    """Suites of two archives below ``root``. Change it, ``publish()`` it, then break what a test is to break."""

    root: Path
    key: Key
    date: str = DATE
    by_hash: bool = True
    arches: tuple[str, ...] = ("amd64",)
    packages: dict[tuple[str, str], list[dict[str, str]]] = field(default_factory=dict)

    def add(self, suite: str, component: str, name: str, version: str, depends: str = "", **fields: str) -> dict[str, str]:
        """One package, with a file in the pool; its stanza, which may still be changed."""
        arch = fields.pop("Architecture", "amd64")
        path = f"pool/{component}/{name[0]}/{name}/{name}_{version.partition(':')[2] or version}_{arch}.deb"
        data = f"{suite} {name} {version}\n".encode()
        file = self.root / ARCHIVES[suite] / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        stanza = {
            "Package": name,
            **({"Source": fields.pop("Source")} if "Source" in fields else {}),
            "Version": version,
            "Maintainer": "Synthetic <a@example.com>",
            "Architecture": arch,
            **({"Depends": depends} if depends else {}),
            "Description": f"synthetic {name}\n with a second line",
            **fields,
            "Filename": path,
            "Size": str(len(data)),
            "SHA256": hashlib.sha256(data).hexdigest(),
        }
        self.packages.setdefault((suite, component), []).append(stanza)
        return stanza

    def drop(self, text: str) -> None:
        """Take out every package with ``text`` in its name or version."""
        for stanzas in self.packages.values():
            stanzas[:] = [s for s in stanzas if text not in s["Package"] and text not in s["Version"]]

    def file(self, name: str) -> Path:
        """``bookworm/main/binary-amd64/Packages.xz`` on disk."""
        return self.root / ARCHIVES[name.partition("/")[0]] / "dists" / name

    def publish(self) -> None:
        """Write every suite whole: indices, their copies by hash, InRelease."""
        for suite in ARCHIVES:
            self.publish_suite(suite)

    def publish_suite(self, suite: str) -> None:
        """Write one suite whole."""
        shutil.rmtree(self.file(suite), ignore_errors=True)
        lines: list[str] = []
        for component in COMPONENTS:
            for arch in self.arches:
                every = self.packages.get((suite, component), [])
                stanzas = [s for s in every if s["Architecture"] in (arch, "all")]
                text = "".join("".join(f"{k}: {v}\n" for k, v in s.items()) + "\n" for s in stanzas)
                data = lzma.compress(text.encode(), preset=0)
                sha256 = hashlib.sha256(data).hexdigest()
                name = f"{component}/binary-{arch}/Packages.xz"
                lines.append(f" {sha256} {len(data):8} {name}")
                self._write(suite, name, data)
                if self.by_hash:
                    self._write(suite, f"{component}/binary-{arch}/by-hash/SHA256/{sha256}", data)
        self._write(suite, "InRelease", self.key.clearsign(self.release(suite, lines)))

    def release(self, suite: str, lines: list[str]) -> bytes:
        """The Release file of ``suite`` with these lines of sums."""
        fields = [
            "Origin: Synthetic",
            f"Suite: {suite.replace('bookworm', 'oldstable')}",
            f"Codename: {suite}",
            f"Date: {self.date}",
            *(["Acquire-By-Hash: yes"] if self.by_hash else []),
            f"Components: {' '.join(COMPONENTS)}",
            "SHA256:",
        ]
        return "\n".join([*fields, *lines, ""]).encode()

    def _write(self, suite: str, name: str, data: bytes) -> None:
        path = self.file(f"{suite}/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


class Handler(BaseHTTPRequestHandler):
    """Gives files, with an ETag made of their bytes."""

    server: _Server

    def do_GET(self) -> None:
        """200, 304 or 404."""
        self.server.asked.append(self.path)
        path = self.server.root / self.path.lstrip("/")
        if not path.is_file():
            self._answer(404, {}, b"")
            return
        data = path.read_bytes()
        etag = self.server.etag or f'"{hashlib.sha256(data).hexdigest()}"'
        if self.headers.get("If-None-Match") == etag:
            self._answer(304, {}, b"")
        else:
            self._answer(200, {"ETag": etag}, data)

    def _answer(self, code: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response_only(code)
        for name, value in {**headers, "Content-Length": str(len(body)), "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    root: Path
    asked: list[str]
    etag: str = ""


class Served:
    """The files below ``root`` over HTTP. ``asked`` holds the path of every request."""

    def __init__(self, root: Path) -> None:
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.root, self._server.asked = root, []
        self.asked = self._server.asked
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def stick_to_one_etag(self) -> None:
        """From now on every file has one ETag, whatever its bytes: a cache in front that is mended by hand."""
        self._server.etag = '"always"'

    def close(self) -> None:
        """Stop; the port is dead from then on. Harmless twice."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def debian_like(root: Path, key: Key) -> SignedArchive:
    """Three kernels, two drivers and what compiles them, laid out and related as in Debian 12."""
    archive = SignedArchive(root, key)

    def add(suite: str, component: str, *words: str, **fields: str) -> None:
        archive.add(suite, component, *words, **fields)

    add("bookworm", "main", "libc6", "2.36-9+deb12u13")
    add("bookworm-security", "main", "libc6", "2.36-9+deb12u14")
    add("bookworm", "main", "busybox", "1:1.35.0-4+b1", "libc6 (>= 2.34)")
    add("bookworm", "main", "kmod", "30-1", "libc6 (>= 2.34)", Recommends="only-recommended")
    add("bookworm", "main", "only-recommended", "1-1")
    add("bookworm", "main", "gcc-12", "12.2.0-14", "libc6 (>= 2.34), binutils")
    add("bookworm", "main", "binutils", "2.40-2")
    for suite, abi, version in (
        ("bookworm", "6.1.0-47", "6.1.170-3"),
        ("bookworm", "6.1.0-50", "6.1.176-1"),
        ("bookworm-security", "6.1.0-56", "6.1.192-2"),
    ):
        name = f"{abi}-cloud-amd64"
        needs = f"linux-headers-{abi}-common (= {version}), linux-kbuild-6.1 (>= {version}), gcc-12"
        add(suite, "main", f"linux-headers-{abi}-common", version, Architecture="all", Source="linux")
        add(suite, "main", f"linux-headers-{name}", version, needs, Source="linux")
        add(suite, "main", f"linux-image-{name}", version, "kmod", Source=f"linux-signed-amd64 ({version}+1)")
    for suite, version in (("bookworm", "6.1.176-1"), ("bookworm-security", "6.1.192-2")):
        add(suite, "main", "linux-kbuild-6.1", version, Source="linux")
    for package in ("headers", "image"):
        needs = f"linux-{package}-6.1.0-50-cloud-amd64 (= 6.1.176-1)"
        add("bookworm", "main", f"linux-{package}-cloud-amd64", "6.1.176-1", needs)
    for suite, version in (("bookworm", "535.261.03-1"), ("bookworm-security", "535.309.01-0+deb12u1")):
        for name in ("nvidia-kernel-source", "nvidia-kernel-dkms", "libcuda1", "nvidia-smi", "nvidia-driver"):
            add(suite, "non-free", name, version, Source="nvidia-graphics-drivers")
        for name in ("xserver-xorg-video-nvidia", "nvidia-vulkan-common", "nvidia-vulkan-icd", "nvidia-driver-libs"):
            add(suite, "non-free", name, version, Source="nvidia-graphics-drivers")
        add(suite, "non-free-firmware", "firmware-nvidia-gsp", version, Source="nvidia-graphics-drivers")
    for name in ("nvidia-open-kernel-source", "nvidia-open-kernel-dkms"):
        add("bookworm", "contrib", name, "535.261.03-1", Source="nvidia-open-gpu-kernel-modules")
    add("bookworm", "contrib", "nvidia-modprobe", "535.161.07-1~deb12u1")
    add("bookworm-security", "contrib", "nvidia-modprobe", "535.309.01-0+deb12u1")
    add("bookworm", "contrib", "nvidia-persistenced", "535.171.04-1~deb12u1")
    add("bookworm", "contrib", "nvidia-settings", "535.261.03-1")
    archive.publish()
    return archive
