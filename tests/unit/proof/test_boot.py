"""The boot proof: what the virtual machine is given, and how its console is judged. No kernel boots here."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import stat
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from pipeline.core.errors import EngineError, PairFailed
from pipeline.proof import initramfs
from pipeline.proof.boot import boot, judge
from tests import flat_images
from tests.kernel_modules import compile_module, needs_gcc

# Synthetic consoles in the form of 6.1.0-47-cloud-amd64 under QEMU.
UP = "\nproof: up 6.1.0-47-cloud-amd64\n"
NO_GPU = """\nproof: begin KIND
proof: said insmod: ERROR: could not insert module /modules/KIND/nvidia.ko: No such device
proof: log [    3.676443] nvidia: loading out-of-tree module taints kernel.
proof: log [    4.026912] nvidia-nvlink: Nvlink Core is being initialized, major device number 244
proof: log [    4.027217] NVRM: No NVIDIA GPU found.
proof: log [    4.063235] nvidia-nvlink: Unregistered Nvlink Core, major device number 244
proof: end KIND 1
"""
DISAGREES = """\nproof: begin open
proof: said insmod: ERROR: could not insert module /modules/open/nvidia.ko: Invalid module format
proof: log [    3.676443] nvidia: disagrees about version of symbol module_layout
proof: end open 1
"""
DONE = "proof: done\n"
BOTH = UP + NO_GPU.replace("KIND", "open") + NO_GPU.replace("KIND", "proprietary") + DONE
OPEN = NO_GPU.replace("KIND", "open")


def reason(console: str) -> str:
    with pytest.raises(PairFailed) as caught:
        judge(console, ["open"])
    return str(caught.value)


class TestJudge:
    def test_no_such_device_and_no_gpu_prove_each_kind(self) -> None:
        assert judge(BOTH, ["open", "proprietary"]) == {
            kind: f"insmod: ERROR: could not insert module /modules/{kind}/nvidia.ko: No such device"
            for kind in ("open", "proprietary")
        }

    def test_each_kind_must_answer_for_itself(self) -> None:
        with pytest.raises(PairFailed, match=r"^boot proof: proprietary nvidia\.ko was never tried: proof: done$"):
            judge(UP + OPEN + DONE, ["open", "proprietary"])

    def test_the_wrong_kernel_is_told_in_its_own_words(self) -> None:
        said = "boot proof: open nvidia.ko: nvidia: disagrees about version of symbol module_layout"
        assert reason(UP + DISAGREES + DONE) == said

    @pytest.mark.parametrize(
        "line",
        [
            "nvidia: Unknown symbol drm_open (err -2)",
            "nvidia: version magic '6.1.0-50-cloud-amd64 SMP ' should be '6.1.0-47-cloud-amd64 SMP '",
            "nvidia: module uses symbol dma_buf_get from namespace DMA_BUF, but does not import it.",
            "BUG: unable to handle page fault for address: ffffffffc0000000",
        ],
    )
    def test_the_decisive_line_is_found_among_others(self, line: str) -> None:
        console = UP + DISAGREES.replace("nvidia: disagrees about version of symbol module_layout", line) + DONE
        assert reason(console) == f"boot proof: open nvidia.ko: {line}"

    def test_without_a_known_reason_insmod_is_quoted(self) -> None:
        said = "insmod: ERROR: could not insert module x: Cannot allocate memory"
        console = UP + f"proof: begin open\nproof: said {said}\nproof: end open 1\n" + DONE
        assert reason(console) == f"boot proof: open nvidia.ko: {said}"

    def test_an_insmod_that_was_killed_says_so_by_its_status(self) -> None:
        assert reason(UP + "proof: begin open\nproof: said \nproof: end open 137\n" + DONE).endswith("with status 137")

    def test_enodev_alone_proves_nothing(self) -> None:
        silent = UP + OPEN.replace("NVRM: No", "NVRM: odd") + DONE
        assert "No such device, and no 'NVRM: No NVIDIA GPU found'" in reason(silent)

    def test_the_other_kinds_log_proves_nothing(self) -> None:
        silent = OPEN.replace("NVRM: No NVIDIA GPU found.", "")
        assert "no 'NVRM: No" in reason(UP + NO_GPU.replace("KIND", "proprietary") + silent + DONE)

    def test_no_gpu_without_enodev_proves_nothing(self) -> None:
        assert reason(UP + OPEN.replace("No such device", "Operation not permitted") + DONE)

    def test_a_module_that_crashed_on_its_way_is_refused(self) -> None:
        crash = "proof: log [    4.05] BUG: kernel NULL pointer dereference\nproof: end open 1"
        said = "boot proof: open nvidia.ko: BUG: kernel NULL pointer dereference"
        assert reason(UP + OPEN.replace("proof: end open 1", crash) + DONE) == said

    def test_a_module_that_loads_without_a_gpu_is_not_the_driver(self) -> None:
        console = UP + "proof: begin open\nproof: said \nproof: end open 0\n" + DONE
        assert reason(console) == "boot proof: open nvidia.ko loaded without a GPU, which it never does"

    def test_what_the_module_depends_on_must_load(self) -> None:
        needed = DISAGREES.replace("open", "open:0").replace("nvidia:", "drm:").replace("nvidia.ko", "drm.ko")
        said = "drm: disagrees about version of symbol module_layout"
        assert reason(UP + needed + OPEN + DONE) == f"boot proof: a module that open nvidia.ko depends on: {said}"

    def test_what_is_there_already_counts_as_loaded(self) -> None:
        there = "proof: begin open:0\nproof: said insmod: ERROR: drm.ko: File exists\nproof: end open:0 1\n"
        loaded = "proof: begin open:1\nproof: said \nproof: end open:1 0\n"
        assert judge(UP + there + loaded + OPEN + DONE, ["open"])

    def test_a_panic_is_quoted(self) -> None:
        panic = "[    1.2] Kernel panic - not syncing: No working init found.\n[    1.2] CPU: 1 PID: 1\n"
        assert reason(panic) == "boot proof: before any module: Kernel panic - not syncing: No working init found."
        assert reason(UP + "proof: begin open\n" + panic).startswith("boot proof: open nvidia.ko: Kernel panic")

    def test_a_silent_console_says_so(self) -> None:
        assert reason("").endswith("was never tried: the console stayed silent")


class TestDependencies:
    @pytest.fixture
    def kernel(self, tmp_path: Path) -> Path:
        """``lib/modules/<kernel>`` with modules that need each other, compressed in every way."""
        directory = tmp_path / "6.1.0-47-amd64"
        (directory / "kernel/drivers").mkdir(parents=True)
        (directory / "modules.builtin").write_text("kernel/drivers/i2c/i2c-core.ko\n")
        for name, depends in {"drm": "i2c-core,backlight", "video": "wmi,drm", "wmi": "", "backlight": ""}.items():
            compile_module(directory / f"kernel/drivers/{name}.ko", info={"depends": depends})
        compile_module(directory / "kernel/drivers/drm-kms-helper.ko", info={"depends": "drm"})
        wmi, video = directory / "kernel/drivers/wmi.ko", directory / "kernel/drivers/video.ko"
        wmi.with_suffix(".ko.xz").write_bytes(lzma.compress(wmi.read_bytes()))
        video.with_suffix(".ko.zst").write_bytes(zstandard.ZstdCompressor().compress(video.read_bytes()))
        wmi.unlink()
        video.unlink()
        return directory

    @needs_gcc
    def test_they_come_in_the_order_of_insertion_each_once(self, tmp_path: Path, kernel: Path) -> None:
        module = compile_module(tmp_path / "nvidia.ko", info={"depends": "drm_kms_helper,video"})
        names = [path.name for path in initramfs.dependencies(module, kernel)]
        assert names == ["backlight.ko", "drm.ko", "drm-kms-helper.ko", "wmi.ko.xz", "video.ko.zst"]

    @needs_gcc
    def test_they_are_decompressed_into_the_virtual_machine(self, tmp_path: Path, kernel: Path) -> None:
        module = compile_module(tmp_path / "nvidia.ko", info={"depends": "video"})
        (tmp_path / "base").mkdir()
        content = initramfs.tree(tmp_path / "base", {"open": module}, kernel)
        for name in ("wmi", "video", "nvidia"):
            data = content[f"modules/open/{name}.ko"][1]
            assert isinstance(data, bytes)
            assert data.startswith(b"\x7fELF")
        script = content["init"][1]
        assert isinstance(script, bytes)
        tries = [line.split()[1:] for line in script.decode().splitlines() if line.startswith("try ")]
        assert [line[0] for line in tries] == ["open:0", "open:1", "open:2", "open:3", "open"]
        assert tries[-1] == ["open", "/modules/open/nvidia.ko"]

    @needs_gcc
    def test_one_that_the_kernel_lacks_is_named(self, tmp_path: Path, kernel: Path) -> None:
        module = compile_module(tmp_path / "nvidia.ko", info={"depends": "gone"})
        for directory in (kernel, None):
            with pytest.raises(PairFailed, match=r"^nvidia\.ko depends on module gone, which the kernel's package"):
                initramfs.dependencies(module, directory)

    @needs_gcc
    def test_a_circle_ends(self, tmp_path: Path, kernel: Path) -> None:
        compile_module(kernel / "kernel/a.ko", info={"depends": "b"})
        compile_module(kernel / "kernel/b.ko", info={"depends": "a"})
        module = compile_module(tmp_path / "nvidia.ko", info={"depends": "a"})
        with pytest.raises(PairFailed, match="which depends on it"):
            initramfs.dependencies(module, kernel)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A runtime base with a merged /usr."""
    root = tmp_path / "base"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/share/doc").mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "usr/bin/sh").write_bytes(b"shell")
    (root / "usr/bin/sh").chmod(0o755)
    (root / "usr/share/doc/long").write_text("text")
    return root


@needs_gcc
class TestInitramfs:
    def written(self, base: Path, module: Path) -> bytes:
        out = io.BytesIO()
        initramfs.write(out, initramfs.tree(base, {"open": module}, None))
        return out.getvalue()

    def entries(self, data: bytes) -> dict[str, tuple[list[int], bytes]]:
        """A reader of its own: name to the thirteen fields and the content."""
        found: dict[str, tuple[list[int], bytes]] = {}
        place = 0
        while True:
            assert data[place : place + 6] == b"070701"
            assert place % 4 == 0
            fields = [int(data[place + 6 + 8 * n : place + 14 + 8 * n], 16) for n in range(13)]
            name = data[place + 110 : place + 110 + fields[11] - 1].decode()
            start = place + -(-(110 + fields[11]) // 4) * 4
            if name == "TRAILER!!!":
                return found
            found[name] = fields, data[start : start + fields[6]]
            place = start + -(-fields[6] // 4) * 4

    def test_it_holds_base_modules_and_a_console(self, tmp_path: Path, base: Path) -> None:
        module = compile_module(tmp_path / "nvidia.ko")
        entries = self.entries(self.written(base, module))
        assert entries["usr/bin/sh"][1] == b"shell"
        assert entries["bin"][1] == b"usr/bin"
        assert entries["modules/open/nvidia.ko"][1] == module.read_bytes()
        modes = {name: fields[1] for name, (fields, _) in entries.items()}
        assert modes["usr/bin/sh"] == modes["init"] == stat.S_IFREG | 0o755
        assert stat.S_ISLNK(modes["bin"])
        assert modes["dev/console"] == stat.S_IFCHR | 0o600
        assert entries["dev/console"][0][9:11] == [5, 1]

    def test_documents_stay_out(self, tmp_path: Path, base: Path) -> None:
        names = self.entries(self.written(base, compile_module(tmp_path / "nvidia.ko")))
        assert "usr/share/doc/long" not in names
        assert "usr/bin" in names

    def test_every_directory_comes_before_what_it_holds(self, tmp_path: Path, base: Path) -> None:
        names = list(self.entries(self.written(base, compile_module(tmp_path / "nvidia.ko"))))
        for number, name in enumerate(names):
            assert "/" not in name or name.rpartition("/")[0] in names[:number]

    def test_the_same_files_give_the_same_bytes_whenever_and_by_whomever(self, tmp_path: Path, base: Path) -> None:
        module = compile_module(tmp_path / "nvidia.ko")
        before = self.written(base, module)
        os.utime(base / "usr/bin/sh", (1, 1))
        (base / "usr/bin/sh").rename(base / "usr/bin/tmp")
        (base / "usr/bin/tmp").rename(base / "usr/bin/sh")
        assert self.written(base, module) == before

    def test_the_script_is_one_that_a_shell_understands(self) -> None:
        script = initramfs.init({"open": ["/modules/open/drm.ko", "/modules/open/nvidia.ko"]})
        assert subprocess.run(["sh", "-n"], input=script, text=True).returncode == 0


@needs_gcc
class TestQemu:
    """A program that stands for QEMU on PATH: a real process with a real pipe, and nothing emulated."""

    @pytest.fixture(autouse=True)
    def stage(self, tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.base = tmp_path, base
        self.module = compile_module(tmp_path / "nvidia.ko")
        (tmp_path / "vmlinuz").write_bytes(b"kernel")
        (tmp_path / "programs").mkdir()
        (tmp_path / "scratch").mkdir()
        monkeypatch.setenv("PATH", f"{tmp_path}/programs:{os.environ['PATH']}")
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))

    def qemu(self, script: str, name: str = "qemu-system-x86_64") -> None:
        program = self.path / "programs" / name
        notes = f'echo $$ >{self.path}/pid\nprintf "%s\\n" "$@" >{self.path}/arguments'
        program.write_text(f"#!/bin/sh\n{notes}\n{script}\n")
        program.chmod(0o755)

    def boot(self, timeout: float = 60, arch: str = "amd64") -> str:
        modules = {"open": self.module}
        vmlinuz = self.path / "vmlinuz"
        result = boot(vmlinuz, modules, base=self.base, kernel_modules=None, arch=arch, timeout=timeout)
        assert result.seconds < timeout
        return result.lines["open"]

    def console(self, text: str) -> str:
        (self.path / "console").write_bytes(text.replace("\n", "\r\n").encode())
        return f"cat {self.path}/console"

    def left_behind(self) -> list[str]:
        return os.listdir(self.path / "scratch")

    def gone(self) -> bool:
        return not Path(f"/proc/{(self.path / 'pid').read_text().strip()}").exists()

    def test_a_machine_that_answered_is_ended_at_once(self) -> None:
        self.qemu(self.console(UP + OPEN + DONE) + "; exec sleep 300")
        assert self.boot().endswith("No such device")
        assert self.gone()
        assert self.left_behind() == []

    def test_it_gets_kernel_and_initramfs_and_no_network(self) -> None:
        self.qemu(f"""while [ $# -gt 1 ]; do [ "$1" != -initrd ] || head -c 6 "$2" >{self.path}/magic; shift; done
            {self.console(UP + OPEN + DONE)}""")
        self.boot()
        arguments = (self.path / "arguments").read_text().splitlines()
        assert arguments[arguments.index("-kernel") + 1] == str(self.path / "vmlinuz")
        assert "-nodefaults" in arguments
        assert "-no-reboot" in arguments
        assert arguments[arguments.index("-append") + 1].startswith("console=ttyS0 ")
        assert (self.path / "magic").read_bytes() == b"070701"

    def test_arm64_has_a_machine_of_its_own(self) -> None:
        (self.path / "vmlinuz").write_bytes(flat_images.flat_image())
        self.qemu(self.console(UP + OPEN + DONE), "qemu-system-aarch64")
        self.boot(arch="arm64")
        arguments = (self.path / "arguments").read_text().splitlines()
        assert arguments[arguments.index("-machine") + 1] == "virt"
        assert arguments[arguments.index("-append") + 1].startswith("console=ttyAMA0 ")
        assert arguments[arguments.index("-kernel") + 1] == str(self.path / "vmlinuz")

    @pytest.mark.parametrize("wrap", [gzip.compress, flat_images.zboot])
    def test_an_arm64_kernel_that_is_packed_is_unpacked_for_qemu(self, wrap: Callable[[bytes], bytes]) -> None:
        (self.path / "vmlinuz").write_bytes(wrap(flat_images.flat_image()))
        self.qemu(f"""while [ $# -gt 1 ]; do [ "$1" != -kernel ] || cat "$2" >{self.path}/kernel; shift; done
            {self.console(UP + OPEN + DONE)}""", "qemu-system-aarch64")  # fmt: skip
        self.boot(arch="arm64")
        assert (self.path / "kernel").read_bytes() == flat_images.flat_image()
        assert self.left_behind() == []

    def test_an_arm64_kernel_that_is_none_failed_its_pair(self) -> None:
        self.qemu("", "qemu-system-aarch64")
        with pytest.raises(PairFailed, match=r"^boot proof: vmlinuz cannot be booted \(it is neither a bzImage nor an Image of"):
            self.boot(arch="arm64")

    @pytest.mark.parametrize(
        ("console", "message"),
        [
            ("[ 0.1] Booting\n", r"^boot proof: the kernel did not come up within 1 s, 3 times: \[ 0\.1\] Booting$"),
            ("", r"^boot proof: the kernel did not come up within 1 s, 3 times: the console stayed silent$"),
            (UP + "proof: begin open\n", r"^boot proof: loading the open module did not end within 1 s$"),
        ],
    )
    def test_a_machine_that_hangs_is_ended_and_its_pair_failed(self, console: str, message: str) -> None:
        self.qemu(self.console(console) + "; exec sleep 300")
        with pytest.raises(PairFailed, match=message):
            self.boot(timeout=1)
        assert self.gone()
        assert self.left_behind() == []

    def test_a_machine_that_hangs_before_any_module_is_started_again(self) -> None:
        again = f"[ -e {self.path}/hung ] || {{ : >{self.path}/hung; exec sleep 300; }}; "
        self.qemu(again + self.console(UP + OPEN + DONE))
        assert self.boot(timeout=1).endswith("No such device")
        assert self.gone()

    def test_a_machine_that_hangs_in_a_module_is_not_started_again(self) -> None:
        self.qemu(f"echo x >>{self.path}/starts; " + self.console(UP + "proof: begin open\n") + "; exec sleep 300")
        with pytest.raises(PairFailed, match="loading the open module did not end"):
            self.boot(timeout=1)
        assert (self.path / "starts").read_text().count("x") == 1

    def test_a_kernel_that_panics_failed_its_pair(self) -> None:
        self.qemu(self.console("[ 1.2] Kernel panic - not syncing: VFS: Unable to mount root fs\n"))
        with pytest.raises(PairFailed, match=r"Kernel panic - not syncing: VFS: Unable to mount root fs$"):
            self.boot()

    def test_a_kernel_that_just_reboots_failed_its_pair(self) -> None:
        self.qemu(self.console("[ 0.1] Booting\n"))
        with pytest.raises(PairFailed, match=r"was never tried: \[ 0\.1\] Booting$"):
            self.boot()

    @pytest.mark.parametrize(
        ("script", "message"),
        [
            ("echo 'cannot load' >&2; exit 1", r"^qemu-system-x86_64 ended with status 1 by itself: cannot load$"),
            ("echo up; kill -SEGV $$", r"^qemu-system-x86_64 ended with status -11 by itself"),
            ("exit 0", r"^qemu-system-x86_64 ended with status 0 by itself"),
        ],
    )
    def test_a_qemu_that_dies_by_itself_says_nothing_about_the_pair(self, script: str, message: str) -> None:
        self.qemu(script)
        with pytest.raises(EngineError, match=message) as caught:
            self.boot()
        assert caught.value.exit_status == 2
        assert self.left_behind() == []

    def test_without_qemu_the_error_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(self.path / "programs"))
        with pytest.raises(EngineError, match=r"^qemu-system-x86_64 is not installed: install qemu-system-x86;"):
            self.boot()
