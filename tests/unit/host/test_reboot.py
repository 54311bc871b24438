"""``nvidia-driver-host`` before a reboot: the next kernel, prefetch, hold and release on each OS, pruning, FleetLock, status."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import pytest

from tests.host_machine import (
    KERNEL,
    NEXT,
    OLD,
    SHELLS,
    A,
    B,
    FleetServer,
    Host,
    host_of,
    make_key,
    request,
    wait_until,
)

CHECKSUM = "a" * 64
BODY = '{"client_params": {"id": "978a225b3d7b40e9acd7ce9b62f68444", "group": "default"}}'
GRUB = """
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-1111' {
}
submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-1111' {
\tmenuentry 'Debian, with Linux NEXT' --class debian $menuentry_id_option 'gnulinux-NEXT-advanced-1111' {
\t}
\tmenuentry 'Debian, with Linux KERNEL (recovery mode)' $menuentry_id_option 'gnulinux-KERNEL-recovery-1111' {
\t}
\tmenuentry 'Debian, with Linux KERNEL' --class debian $menuentry_id_option 'gnulinux-KERNEL-advanced-1111' {
\t}
}
"""


@pytest.fixture(params=sorted(SHELLS))
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    made = host_of(tmp_path, str(request.param))
    made.program("systemctl", 'echo "systemctl $*" >> "$WORLD/log"; [ "$1" != is-active ]')
    return made


def wait_is_over(host: Host, seconds: int) -> None:
    """Moves the start of every hold into the past."""
    for file in (host.root / "var/lib/nvidia-driver/hold").iterdir():
        if file.name != "boot-default":
            file.write_text(f"{int(file.read_text()) - seconds}\n")


# Prefetch


def test_a_prefetch_asks_each_new_image_once_whether_it_serves_the_gpus(host: Host) -> None:
    host.run("prefetch")
    host.run("prefetch")
    assert host.log("run") == [f"run {A} kind"]
    host.stage()
    host.publish(NEXT, A)
    host.run("prefetch")
    assert host.log("run") == [f"run {A} kind"] * 2


def test_a_driver_that_no_longer_serves_the_gpu_is_told_while_the_old_one_runs(host: Host) -> None:
    host.run("boot")
    host.settings(DRIVER_VERSION=B, DRIVER_FALLBACK=A)
    host.answers(host.publish(KERNEL, B), "kind", 17, f"GPU 10de:102d needs branch 470, which {B} no longer serves")
    said = host.run("prefetch")
    assert f"for {KERNEL}: GPU 10de:102d needs branch 470, which {B} no longer serves" in said
    assert f"for {KERNEL}: {A} is here" in said, "the fallback is fetched instead"
    host.settings(DRIVER_FALLBACK="")
    assert "needs branch 470" in host.run("prefetch", status=17)


def test_status_says_which_kind_the_image_has_for_the_gpus(host: Host) -> None:
    host.answers(host.a, "kind", 0, f"open modules of {A} (recommended for {A}; GPU 10de:2330 takes either)")
    host.run("prefetch")
    host.run("status")
    assert f"kind    open modules of {A} (recommended for {A}; GPU 10de:2330 takes either)" in host.out


def test_an_image_from_before_that_question_is_taken_as_it_is(host: Host) -> None:
    host.answers(host.a, "kind", 2, "no command 'kind': see 'nvidia-driver help'")
    assert f"for {KERNEL}: {A} is here" in host.run("prefetch")


def test_an_upgrade_works_with_the_registry_gone_after_the_prefetch(host: Host) -> None:
    host.run("boot")
    host.stage()
    b = host.publish(NEXT, A)
    host.publish_index()
    assert f"for {NEXT}: {A} is here ({b}" in host.run("prefetch")
    host.reboot(NEXT)
    host.down()
    host.run("boot")
    assert host.loaded == A
    assert host.log("pull") == []


def test_a_changed_driver_setting_is_fetched_at_once_and_applied_at_the_next_boot(host: Host) -> None:
    host.run("boot")
    host.publish(KERNEL, B)
    host.settings(DRIVER_VERSION=B)
    host.run("prefetch")
    assert host.loaded == A
    host.reboot()
    host.down()
    host.run("boot")
    assert host.loaded == B


def test_for_the_next_kernel_a_listed_fallback_is_fetched_too(host: Host) -> None:
    host.run("boot")
    host.stage()
    host.settings(DRIVER_VERSION=B, DRIVER_FALLBACK=A)
    host.publish(NEXT, A)
    host.run("prefetch")
    host.run("may-reboot")
    assert f"the image for {NEXT} is here ({A})" in host.out


def test_a_host_without_a_gpu_fetches_nothing(host: Host) -> None:
    host.no_gpu()
    host.stage()
    assert "nothing to fetch" in host.run("prefetch")
    assert host.log("pull") == []


# Hold


def test_a_missing_image_holds_the_reboot_and_says_why(host: Host) -> None:
    host.run("boot")
    host.stage()
    host.note(NEXT, A, "pending", reason="not built yet")
    host.publish_index()
    said = host.run("prefetch", status=30)
    assert "the next reboot is held since" in said
    host.run("may-reboot", status=1)
    words = (
        f"the image for the next kernel {NEXT} is missing: no image for kernel {NEXT} and driver {A} yet: pending: not built yet"
    )
    assert re.match(r"held since [-0-9]{10}T[:0-9]{8}Z, at most until [-0-9]{10}T[:0-9]{8}Z: the image", host.out)
    assert words in host.out
    host.run("status")
    assert words in host.out


def test_the_hold_ends_by_itself_when_the_image_is_there(host: Host) -> None:
    host.run("boot")
    host.stage()
    host.run("prefetch", status=30)
    host.publish(NEXT, A)
    host.run("prefetch")
    host.run("may-reboot")
    assert host.out.startswith("free: the image")


def test_the_hold_ends_loudly_at_its_deadline(host: Host) -> None:
    host.run("boot")
    host.stage()
    host.run("prefetch", status=30)
    wait_is_over(host, 7 * 86400 - 60)
    host.run("may-reboot", status=1)
    wait_is_over(host, 60)
    host.run("may-reboot")
    assert "LETTING GO after 7d WITHOUT A DRIVER" in host.out
    assert "LETTING GO" in host.run("prefetch", status=30)


def test_a_hold_without_end_is_opt_in(host: Host) -> None:
    host.settings(DRIVER_HOLD_DEADLINE="never")
    host.run("boot")
    host.stage()
    host.run("prefetch", status=30)
    wait_is_over(host, 400 * 86400)
    host.run("may-reboot", status=1)
    assert "without end (DRIVER_HOLD_DEADLINE=never)" in host.out


def test_a_hold_begun_under_a_wrong_clock_is_counted_from_now(host: Host) -> None:
    host.run("boot")
    host.stage()
    host.write(f"var/lib/nvidia-driver/hold/{NEXT}", str(int(time.time()) + 10**8))
    host.run("may-reboot", status=1)
    assert int(host.read(f"var/lib/nvidia-driver/hold/{NEXT}")) <= time.time()


@pytest.mark.parametrize("without", ["a GPU", "an image for the running kernel"])
def test_a_host_with_nothing_to_lose_is_never_held(host: Host, without: str) -> None:
    host.stage()
    if without == "a GPU":
        host.no_gpu()
    host.run("may-reboot")
    assert host.out.startswith("free: no ")


def test_the_kernel_that_runs_already_holds_nothing(host: Host) -> None:
    host.run("boot")
    host.write(f"boot/vmlinuz-{KERNEL}", "a kernel")
    host.run("may-reboot")
    assert host.out.startswith("free: what is staged has the running kernel")


# Debian


def test_on_debian_the_running_kernel_stays_the_boot_default_while_the_image_is_missing(host: Host) -> None:
    host.write("boot/grub/grub.cfg", GRUB.replace("KERNEL", KERNEL).replace("NEXT", NEXT))
    host.write("etc/default/grub.d/nvidia-driver.cfg", "GRUB_DEFAULT=saved")
    host.run("boot")
    host.stage()
    assert f"a reboot starts {KERNEL} until the image for {NEXT} is here" in host.run("prefetch", status=30)
    host.run("prefetch", status=30)
    entry = f"grub-set-default gnulinux-advanced-1111>gnulinux-{KERNEL}-advanced-1111"
    assert host.log("grub-set-default") == [entry], "once"
    host.publish(NEXT, A)
    host.run("prefetch")
    assert host.log("grub-set-default") == [entry, "grub-set-default 0"]


def test_on_debian_a_boot_loader_that_cannot_be_told_is_said_aloud(host: Host) -> None:
    host.run("boot")
    host.stage()
    assert f"a reboot starts {NEXT} without a driver" in host.run("prefetch", status=30)


def test_the_newest_kernel_of_debian_is_found_by_number_not_by_letter(host: Host) -> None:
    host.run("boot")
    for kernel in ("6.1.0-9-cloud-amd64", "6.1.0-100-cloud-amd64", KERNEL):
        host.write(f"boot/vmlinuz-{kernel}", "a kernel")
    host.run("status", "--json")
    assert json.loads(host.out)["next_kernel"] == "6.1.0-100-cloud-amd64"


# Fedora CoreOS


def coreos(host: Host, shared: Path, kernel: str) -> None:
    """The recorded answer of rpm-ostree, its first deployment made the staged one, and that deployment's files."""
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed (./doit.sh test installs it)")
    host.write("etc/os-release", "ID=fedora\nVERSION_ID=43\nVARIANT_ID=coreos")
    document = json.loads((shared / "upstream/fcos/cincinnati/rpm-ostree-status.json").read_text())
    booted = document["deployments"][0]
    staged = {
        **booted,
        "booted": False,
        "staged": True,
        "checksum": CHECKSUM,
        "version": "43.20251124.3.0",
        "finalization-locked": True,
    }
    document["deployments"] = [staged, {**booted, "booted": True}]
    host.program("rpm-ostree", f"[ \"$*\" = 'status --json' ] && cat {host.world}/ostree.json")
    (host.world / "ostree.json").write_text(json.dumps(document))
    deployment = f"ostree/deploy/{booted['osname']}/deploy/{CHECKSUM}.{booted['serial']}"
    host.write(f"{deployment}/usr/lib/modules/{kernel}/vmlinuz", "a kernel")
    host.write(f"{deployment}/usr/lib/modules/of-another-package/modules.dep", "")
    host.write(f"{deployment}/usr/lib/os-release", "ID=fedora\nVERSION_ID=43")


def ask(host: Host, step: str = "pre-reboot", body: str = BODY, **more: object) -> tuple[int, dict[str, str]]:
    host.run("fleetlock", given=request(step, body, **more))  # type: ignore[arg-type]
    head, _, content = host.out.partition("\r\n\r\n")
    match = re.match(r"HTTP/1\.1 (\d{3}) ", head)
    assert match, host.out
    assert f"Content-Length: {len(content)}" in head.split("\r\n")
    return int(match[1]), json.loads(content)


def test_zincati_is_refused_until_the_staged_deployments_image_is_here(host: Host, shared: Path) -> None:
    host.run("boot")
    coreos(host, shared, NEXT)
    code, refusal = ask(host)
    assert (code, refusal["kind"]) == (423, "driver_image_missing")
    assert NEXT in refusal["value"]
    assert "systemctl start --no-block nvidia-driver-prefetch.service" in host.log("systemctl")
    digest = host.image(NEXT, A)
    host.tag(digest, f"{A}-{NEXT}-fedora43")
    host.run("prefetch")
    assert ask(host)[0] == 200


def test_steady_state_is_always_granted(host: Host) -> None:
    assert ask(host, "steady-state") == (200, {})
    (host.root / "etc/nvidia-driver/driver.env").unlink()
    (host.world / "no-engine").touch()
    assert ask(host, "steady-state") == (200, {})


def test_a_host_with_a_broken_setting_still_gets_its_updates(host: Host, shared: Path) -> None:
    host.run("boot")
    coreos(host, shared, NEXT)
    host.settings(DRIVER_VERSION="latest")
    assert ask(host)[0] == 200


@pytest.mark.parametrize(
    ("given", "code", "kind"),
    [
        (request("pre-reboot", BODY, headers=()), 400, "missing_header"),
        (request("pre-reboot", BODY, headers=("fleet-lock-protocol: 1",)), 400, "missing_header"),
        (request("pre-reboot", BODY, method="GET"), 405, "method_not_allowed"),
        (request("frob", BODY), 404, "not_found"),
        (request("pre-reboot", "{}"), 400, "invalid_client_identity"),
        (request("pre-reboot", BODY.replace("default", "a b")), 400, "invalid_client_identity"),
        (request("pre-reboot", BODY.replace("978a225b3d7b40e9acd7ce9b62f68444", "")), 400, "invalid_client_identity"),
        (request("pre-reboot", ""), 400, "invalid_client_identity"),
        (request("pre-reboot", " " * 100000), 413, "too_large"),
        (request("pre-reboot", BODY, headers=["a: b"] * 200), 400, "bad_request"),
    ],
    ids=[
        "no header",
        "another value",
        "GET",
        "another path",
        "no identity",
        "bad group",
        "empty id",
        "no body",
        "large",
        "headers",
    ],
)
def test_a_request_that_the_protocol_does_not_know_is_refused_in_its_words(
    host: Host, given: bytes, code: int, kind: str
) -> None:
    host.run("fleetlock", given=given)
    assert host.out.startswith(f"HTTP/1.1 {code} ")
    answer = json.loads(host.out.partition("\r\n\r\n")[2])
    assert answer["kind"] == kind
    assert answer["value"]


def test_a_client_that_says_nothing_gets_nothing(host: Host) -> None:
    host.run("fleetlock", given=b"")
    assert host.out == ""


def need_curl() -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed (./doit.sh test installs it)")


def test_the_fleets_own_server_is_asked_after_our_check_and_its_answer_passed_on(host: Host) -> None:
    need_curl()
    refusal = b'{"kind": "lock_held", "value": "another host reboots"}'
    with FleetServer((423, refusal), (200, b"")) as fleet:
        host.settings(DRIVER_FLEETLOCK_UPSTREAM=fleet.address)
        assert ask(host) == (423, json.loads(refusal))
        assert ask(host, "steady-state") == (200, {})
    assert fleet.asked[0].startswith(b"POST /fleet/v1/pre-reboot HTTP/1.1")
    assert b"fleet-lock-protocol: true" in fleet.asked[0].lower()
    assert json.loads(fleet.asked[0].split(b"\r\n\r\n")[1]) == json.loads(BODY)
    assert fleet.asked[1].startswith(b"POST /fleet/v1/steady-state")


def test_the_fleets_server_is_not_asked_while_our_image_is_missing(host: Host, shared: Path) -> None:
    need_curl()
    host.run("boot")
    coreos(host, shared, NEXT)
    with FleetServer() as fleet:
        host.settings(DRIVER_FLEETLOCK_UPSTREAM=fleet.address)
        assert ask(host)[0] == 423
    assert fleet.asked == []


def test_a_silent_fleet_server_is_no_permission(host: Host) -> None:
    need_curl()
    host.settings(DRIVER_FLEETLOCK_UPSTREAM="http://127.0.0.1:9/")
    code, answer = ask(host)
    assert (code, answer["kind"]) == (502, "upstream_unreachable")


def test_a_slot_that_the_fleets_server_did_not_take_back_is_offered_again(host: Host) -> None:
    need_curl()
    host.run("boot")
    with FleetServer((500, b"{}"), (200, b"{}")) as fleet:
        host.settings(DRIVER_FLEETLOCK_UPSTREAM=fleet.address)
        assert ask(host, "steady-state")[0] == 200
        assert (host.root / "var/lib/nvidia-driver/fleetlock-owed").exists()
        host.run("prefetch")
        wait_until(lambda: len(fleet.asked) == 2)
    assert not (host.root / "var/lib/nvidia-driver/fleetlock-owed").exists()


# Flatcar


def flatcar(host: Host, kernel: str, operation: str = "UPDATED_NEED_REBOOT", name: str = "flatcar") -> None:
    """The recorded words of update_engine_client, and the other partition with this kernel."""
    host.write("etc/os-release", f"ID={name}\nVERSION_ID=4593.2.5")
    recorded = f"LAST_CHECKED_TIME=1700000000\nPROGRESS=0.0\nCURRENT_OP=UPDATE_STATUS_{operation}\nNEW_VERSION=0.0.0\nNEW_SIZE=0"
    (host.world / "update").write_text(recorded + "\n")
    host.program("update_engine_client", f"[ \"$1\" = -status ] && cat {host.world}/update; echo 'I1124 log' >&2")
    host.program("rootdev", 'echo "rootdev $*" >> "$WORLD/log"; echo /dev/vda3')
    host.program("cgpt", 'echo "cgpt $*" >> "$WORLD/log"; printf "/dev/vda3\\n/dev/vda4\\n"')
    next_usr = host.world / "next-usr"
    (next_usr / f"lib/modules/{kernel}").mkdir(parents=True, exist_ok=True)
    (next_usr / "lib/os-release").write_text(f"ID={name}\nVERSION_ID=4700.0.0\n")
    host.program("mount", 'echo "mount $*" >> "$WORLD/log"; for last; do :; done; cp -R "$WORLD/next-usr/." "$last"')


@pytest.fixture
def dash_only(host: Host) -> None:
    if host.shell[0] == "busybox":
        pytest.skip("busybox takes its own mount, which needs a real disk; dash takes the stand-in")


@pytest.mark.usefixtures("dash_only")
@pytest.mark.parametrize("name", ["flatcar", "coreos"])
def test_on_flatcar_the_other_partition_is_read_and_locksmithd_waits_for_the_image(host: Host, name: str) -> None:
    host.tag(host.a, f"{KERNEL}-{A}")
    flatcar(host, "6.12.103-flatcar", name=name)
    host.run("boot")
    host.run("prefetch", status=30)
    assert f"cgpt find -t {name}-usr" in host.log("cgpt")
    assert "/dev/vda4" in host.log("mount")[0]
    assert host.log("systemctl")[-1] == "systemctl stop --no-block locksmithd.service"
    assert not (host.root / "run/nvidia-driver/may-reboot").exists()
    host.tag(host.image("6.12.103-flatcar", A), f"{A}-6.12.103-flatcar-{name}4700.0.0")
    host.run("prefetch")
    assert (host.root / "run/nvidia-driver/may-reboot").exists()
    assert host.log("systemctl")[-1] == "systemctl start --no-block locksmithd.service"


@pytest.mark.usefixtures("dash_only")
def test_on_flatcar_an_update_with_the_same_kernel_is_let_through(host: Host) -> None:
    flatcar(host, KERNEL)
    host.tag(host.a, f"{KERNEL}-{A}")
    host.run("boot")
    host.run("prefetch")
    assert (host.root / "run/nvidia-driver/may-reboot").exists()


def test_on_flatcar_locksmithd_does_not_run_before_an_update_is_there(host: Host) -> None:
    flatcar(host, "6.12.103-flatcar", operation="IDLE")
    host.tag(host.a, f"{KERNEL}-{A}")
    host.run("boot")
    host.run("prefetch")
    assert not (host.root / "run/nvidia-driver/may-reboot").exists()
    assert host.log("cgpt") == []


def test_on_flatcar_a_host_without_a_gpu_reboots_as_ever(host: Host) -> None:
    flatcar(host, "6.12.103-flatcar")
    host.no_gpu()
    host.run("prefetch")
    assert (host.root / "run/nvidia-driver/may-reboot").exists()
    assert host.log("systemctl")[-1] == "systemctl start --no-block locksmithd.service"


def test_etcd_lock_is_refused_before_an_installation(host: Host) -> None:
    flatcar(host, KERNEL, operation="IDLE")
    host.write("usr/share/flatcar/update.conf", "REBOOT_STRATEGY=reboot")
    host.write("etc/flatcar/update.conf", "GROUP=stable\nREBOOT_STRATEGY=etcd-lock")
    assert "REBOOT_STRATEGY=etcd-lock" in host.run("check", status=2)
    host.write("etc/flatcar/update.conf", "REBOOT_STRATEGY=reboot")
    assert "this host can be served" in host.run("check")


# Prune


def test_images_of_the_running_the_previous_and_the_staged_kernel_are_kept_and_others_go(host: Host) -> None:
    kernels = ["6.1.0-40-cloud-amd64", KERNEL, NEXT, "6.1.0-56-cloud-amd64"]
    digests = {}
    for kernel in kernels:
        digests[kernel] = host.publish(kernel, A)
    foreign = host.image(KERNEL, A, "somebody else's")
    shutil.copytree(host.world / "registry/images" / foreign[7:], host.world / "store/images" / foreign[7:])
    (host.world / "store/images" / foreign[7:] / "repository").write_text("docker.example/other\n")
    for kernel in kernels[:3]:
        host.reboot(kernel)
        host.run("boot")
    host.stage(kernels[3])
    said = host.run("prefetch")
    assert host.stored() == {digests[kernel] for kernel in kernels[1:]} | {foreign}
    assert f"removed driver:{kernels[0]}-{A}" in said
    assert {path.name for path in (host.root / "var/lib/nvidia-driver/good").iterdir()} == {KERNEL, NEXT}


def test_what_a_driver_that_is_gone_left_on_the_disk_goes_too(host: Host) -> None:
    host.run("boot")
    for path in (f"var/lib/nvidia-docker/volumes/nvidia_driver/{OLD}/.complete", f"var/lib/nvidia-driver/{OLD}/firmware/x"):
        host.write(path, OLD)
    host.run("prune")
    assert not (host.root / f"var/lib/nvidia-docker/volumes/nvidia_driver/{OLD}").exists()
    assert not (host.root / f"var/lib/nvidia-driver/{OLD}").exists()
    assert (host.root / f"var/lib/nvidia-docker/volumes/nvidia_driver/{A}").exists()


def test_the_digest_that_worked_stays_beside_the_one_that_a_moved_tag_brought(host: Host) -> None:
    host.run("boot")
    moved = host.publish(KERNEL, A, "built anew")
    host.run("prefetch")
    assert host.stored() == {host.a, moved}


# Status


def test_status_tells_what_is_loaded_what_is_here_and_that_nothing_holds(host: Host) -> None:
    private, public = make_key(host.world)
    host.write("etc/nvidia-driver/driver.pub", public.read_text())
    host.settings(DRIVER_KEY="/etc/nvidia-driver/driver.pub")
    host.publish_index(serial=42, key=private)
    host.run("boot")
    host.run("status")
    assert f"driver  {A} is loaded\n" in host.out
    assert f"image   {A} here, {host.a}" in host.out
    assert "index   serial 42" in host.out
    assert "signature good" in host.out
    host.run("status", "--json")
    told = json.loads(host.out)
    assert (told["loaded"], told["image"], told["image_here"], told["reboot"], told["index_signed"]) == (
        A,
        host.a,
        True,
        "go",
        True,
    )


def test_status_works_where_nothing_else_does(host: Host) -> None:
    (host.world / "no-engine").touch()
    host.run("boot", status=34)
    host.run("status")
    assert "driver  not loaded" in host.out
    assert "Cannot connect to the Docker daemon" in host.out


def test_an_uninstallation_takes_what_was_installed_and_keeps_the_settings(host: Host) -> None:
    host.write("usr/local/bin/nvidia-smi", "#!/bin/sh")
    host.write("etc/systemd/system/nvidia-driver.service", "[Unit]")
    paths = ["/usr/local/bin/nvidia-smi", "/etc/systemd/system/nvidia-driver.service", "/etc/nvidia-driver/driver.env"]
    host.write("etc/nvidia-driver/installed", "\n".join([*paths, "mask nvidia.service"]))
    host.run("uninstall")
    assert [path for path in paths if (host.root / path[1:]).exists()] == ["/etc/nvidia-driver/driver.env"]
    asked = host.log("systemctl")
    assert "systemctl disable nvidia-driver.service" in asked
    assert "systemctl unmask nvidia.service" in asked
    assert "nothing was installed" in host.run("uninstall", status=2)
