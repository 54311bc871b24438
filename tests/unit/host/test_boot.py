"""``nvidia-driver-host`` at boot: which image, how it is trusted, what follows when something is missing or fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.host_machine import KERNEL, NEXT, NOTED, OLD, REPOSITORY, SHELLS, A, B, Host, host_of, make_key


@pytest.fixture(params=sorted(SHELLS))
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    return host_of(tmp_path, str(request.param))


# Boot


def test_a_boot_pulls_fills_the_volume_loads_and_describes_the_devices(host: Host) -> None:
    said = host.run("boot")
    assert host.loaded == A
    assert [line.split()[2] for line in host.log("run")] == ["volume", "load", "cdi"]
    assert f"driver {A} is loaded on {KERNEL} ({host.a})" in said
    assert host.read("run/cdi/nvidia.yaml") == A


def test_the_name_with_the_os_goes_before_the_plain_one(host: Host) -> None:
    other = host.image(KERNEL, A, "the same kernel string, built for another release")
    host.tag(other, f"{KERNEL}-{A}")
    host.run("boot")
    assert host.stored() == {host.a}


def test_the_plain_name_serves_where_there_is_no_other(host: Host) -> None:
    host.withdraw(KERNEL, A)
    host.tag(host.a, f"{KERNEL}-{A}")
    host.run("boot")
    assert [line.split()[1] for line in host.log("pull")] == [
        f"{REPOSITORY}:{A}-{KERNEL}-debian12",
        f"{REPOSITORY}:{KERNEL}-{A}",
        f"{REPOSITORY}@{host.a}",  # podman's image keeps its digest so when the tag moves
    ]
    assert host.loaded == A


def test_a_kernel_with_a_plus_is_asked_for_with_an_underscore(host: Host) -> None:
    host.reboot("6.12.107+deb13-cloud-amd64")
    host.publish("6.12.107+deb13-cloud-amd64", A)
    host.run("boot")
    assert host.loaded == A


def test_a_second_boot_asks_no_registry(host: Host) -> None:
    host.run("boot")
    host.reboot()
    host.down()
    host.run("boot")
    assert host.loaded == A
    assert host.log("pull") == []


def test_with_the_image_here_a_boot_starts_one_container_and_asks_the_engine_nothing_else(host: Host) -> None:
    host.run("boot")
    host.reboot()
    host.run("boot")
    assert host.words() == ["run"]
    assert [line.split()[2] for line in host.log("run")] == ["volume", "load", "cdi"]
    assert host.read("run/cdi/nvidia.yaml") == A


def test_a_container_that_a_power_cut_left_is_removed_and_no_obstacle(host: Host) -> None:
    host.run("boot")
    host.reboot()
    (host.world / "left").touch()
    host.run("boot")
    assert host.words() == ["run", "rm", "run"]
    assert host.loaded == A


def test_an_engine_that_does_not_answer_yet_is_waited_for_though_the_image_is_pinned(host: Host) -> None:
    host.run("boot")
    host.reboot()
    (host.world / "no-engine").touch()
    host.program("sleep", 'rm -f "$WORLD/no-engine"')
    host.run("boot")
    assert host.words() == ["run", "version", "version", "image", "run"]
    assert host.loaded == A


def test_a_volume_or_a_specification_that_fails_is_told_and_the_driver_is_loaded(host: Host) -> None:
    host.answers(host.a, "volume", 1, "volume: cannot copy: is the disk full?")
    host.answers(host.a, "cdi", 10, "cdi: the driver serves no GPU")
    said = host.run("boot")
    assert "is the disk full?\n  nvidia-driver: warning: volume ended 1 (the line above says why); going on" in said
    assert "warning: cdi ended 10" in said
    assert host.loaded == A


def test_a_registry_that_comes_up_late_is_waited_for_with_growing_pauses(host: Host) -> None:
    host.down(tries=3)
    said = host.run("boot")
    assert host.loaded == A
    pauses = (host.world / "sleeps").read_text().split()
    assert pauses == ["sleep", "5", "sleep", "10", "sleep", "20"]
    assert "connection refused; asking again in 5 s" in said


def test_a_boot_does_not_wait_for_ever(host: Host) -> None:
    host.settings(DRIVER_BOOT_DEADLINE="0")
    host.down()
    assert "connection refused" in host.run("boot", status=31)
    assert host.loaded == ""


def test_without_a_gpu_nothing_is_asked_or_loaded(host: Host) -> None:
    host.no_gpu()
    assert "no NVIDIA GPU in this machine: nothing to load" in host.run("boot", status=10)
    assert host.log() == []


def test_podman_and_docker_are_asked_in_their_own_words(host: Host) -> None:
    host.write("etc/nvidia-driver/auth.json", '{"auths": {}}')
    host.settings(DRIVER_CREDENTIALS="/etc/nvidia-driver/auth.json")
    host.run("boot")
    line, named = host.log("pull")
    assert named.split()[1] == f"{REPOSITORY}@{host.a}"
    assert f"--tls-verify=true --authfile {host.root}/etc/nvidia-driver/auth.json" in line
    host.forget()
    host.settings(DRIVER_RUNTIME="docker")
    host.run("prefetch")
    assert host.log("login") == ['login {"auths": {}}'] * 2
    assert "--tls-verify" not in " ".join(host.log("pull"))


def test_settings_for_the_loader_are_handed_into_the_container(host: Host) -> None:
    host.settings(KERNEL_MODULE_TYPE="proprietary", NVIDIA_PERSISTENCED="1")
    host.run("boot")
    assert host.log("run")[1] == f"run {A} load KERNEL_MODULE_TYPE NVIDIA_PERSISTENCED"


def test_an_engine_that_does_not_run_is_named_and_not_waited_for_without_end(host: Host) -> None:
    (host.world / "no-engine").touch()
    assert "Cannot connect to the Docker daemon" in host.run("boot", status=34)


def test_a_merged_driver_extension_of_flatcar_is_no_neighbour(host: Host) -> None:
    host.program("systemctl", "exit 3")
    host.write("usr/lib/extension-release.d/extension-release.flatcar-nvidia-drivers-570", "ID=flatcar")
    assert "flatcar-nvidia-drivers-570 is merged" in host.run("boot", status=2)
    assert host.log("run") == []


@pytest.fixture(autouse=True)
def quiet_systemctl(host: Host) -> None:
    """No unit is active on a synthetic host."""
    host.program("systemctl", 'echo "systemctl $*" >> "$WORLD/log"; [ "$1" != is-active ]')


# Settings


@pytest.mark.parametrize(
    ("values", "words", "status"),
    [
        ({"DRIVER_REGISTRY": ""}, "DRIVER_REGISTRY is not set", 2),
        ({"DRIVER_VERSION": ""}, "DRIVER_VERSION is not set", 2),
        ({"DRIVER_VERSION": "latest"}, "'latest' is neither a driver version", 2),
        ({"DRIVER_VERSION": "535 550"}, "takes one version", 2),
        ({"DRIVER_HOLD_DEADLINE": "a week"}, "DRIVER_HOLD_DEADLINE=a week", 2),
        ({"DRIVER_RUNTIME": "lxc"}, "DRIVER_RUNTIME=lxc", 2),
        ({"DRIVER_KEY": "/etc/none.pub"}, "nothing is loaded without it", 32),
    ],
)
def test_a_setting_that_cannot_be_meant_is_one_line(host: Host, values: dict[str, str], words: str, status: int) -> None:
    host.settings(**values)
    said = host.run("boot", status=status)
    assert words in said
    assert len(said.splitlines()) == 1
    assert host.loaded == ""


def test_settings_are_values_and_never_commands(host: Host) -> None:
    host.settings(DRIVER_FALLBACK="$(touch /tmp/never) `true`")
    assert "neither a driver version" in host.run("boot", status=2)


def test_an_unknown_setting_is_named_and_no_obstacle(host: Host) -> None:
    host.settings(DRIVER_VERSOIN="x")
    assert "DRIVER_VERSOIN, which is no setting" in host.run("boot")


# Trust


def test_plain_http_is_refused_but_on_this_machine_or_where_the_administrator_says_so(host: Host) -> None:
    host.settings(DRIVER_REGISTRY="http://registry.example/gpu")
    assert "plain HTTP to registry.example is refused" in host.run("boot", status=32)
    assert host.log("pull") == []
    host.settings(DRIVER_INSECURE="1")
    host.run("boot")
    assert "--tls-verify=false" in host.log("pull")[0]
    host.settings(DRIVER_INSECURE="", DRIVER_REGISTRY="localhost:5000")
    host.forget()
    host.run("prefetch", status=0)
    assert "--tls-verify=false" in host.log("pull")[0]


def test_a_docker_daemon_that_takes_the_registry_without_tls_is_refused(host: Host) -> None:
    (host.world / "insecure").write_text("registry.example \n")
    host.settings(DRIVER_RUNTIME="docker")
    assert "insecure-registries" in host.run("boot", status=32)
    assert host.log("pull") == []


def test_a_tag_that_moved_is_not_loaded_until_a_prefetch_has_told_so(host: Host) -> None:
    host.run("boot")
    moved = host.publish(KERNEL, A, "built anew")
    host.reboot()
    host.run("boot")
    assert host.read(f"var/lib/nvidia-driver/good/{KERNEL}").startswith(host.a)
    said = host.run("prefetch")
    assert f"moved: it was {host.a} ({A}), it is {moved}" in said
    host.reboot()
    host.run("boot")
    assert host.read(f"var/lib/nvidia-driver/good/{KERNEL}").startswith(moved)


def test_a_pinned_digest_that_is_gone_is_not_replaced_in_silence(host: Host) -> None:
    host.run("boot")
    for folder in ("store", "registry"):
        (host.world / folder / "images" / host.a.removeprefix("sha256:")).rename(host.world / f"gone-{folder}")
    host.publish(KERNEL, A, "built anew")
    host.reboot()
    assert f"was pinned as {host.a}, which the registry no longer has" in host.run("boot", status=30)
    assert host.loaded == ""


def test_a_pin_file_torn_by_a_power_cut_is_asked_anew(host: Host) -> None:
    host.run("boot")
    for torn in ("", "sha256:12", "sha256:" + "g" * 64):
        host.write(f"var/lib/nvidia-driver/pins/{KERNEL}-{A}", torn)
        host.reboot()
        host.run("boot")
        assert host.loaded == A
        assert host.read(f"var/lib/nvidia-driver/pins/{KERNEL}-{A}").startswith(host.a)


def signed(host: Host) -> tuple[Path, Path]:
    private, public = make_key(host.world)
    host.write("etc/nvidia-driver/driver.pub", public.read_text())
    host.settings(DRIVER_KEY="/etc/nvidia-driver/driver.pub")
    return private, public


def test_with_a_key_the_digest_comes_from_the_signed_index_and_no_tag_is_asked(host: Host) -> None:
    private, _ = signed(host)
    host.tag(host.image(KERNEL, A, "forged"), f"{KERNEL}-{A}", f"{A}-{KERNEL}-debian12")
    host.publish_index(key=private)
    host.run("boot")
    assert host.loaded == A
    assert [line.split()[1] for line in host.log("pull")] == [f"{REPOSITORY}:index", f"{REPOSITORY}@{host.a}"]


def test_of_two_builds_for_one_kernel_string_the_signed_index_gives_the_one_for_this_os(host: Host) -> None:
    private, _ = signed(host)
    other = host.image(KERNEL, A, "another release's")
    host.note(KERNEL, A, "built", digest=other, tags=(f"{KERNEL}-{A}", f"{A}-{KERNEL}-debian13"))
    host.publish_index(key=private)
    host.run("boot")
    assert f"{REPOSITORY}@{host.a}" in host.log("pull")[1]


@pytest.mark.parametrize("forgery", ["unsigned", "altered", "another key"])
def test_with_a_key_nothing_is_loaded_without_a_good_signature(host: Host, forgery: str) -> None:
    private, _ = signed(host)
    if forgery == "another key":
        private, _ = make_key(host.world, "another")
    host.publish_index(key=None if forgery == "unsigned" else private, alter=forgery == "altered")
    said = host.run("boot", status=32)
    assert "nothing is taken from it" in said
    assert host.loaded == ""
    assert host.log("run") == []


def test_an_old_signed_index_played_back_is_refused(host: Host) -> None:
    private, _ = signed(host)
    host.publish_index(serial=7, key=private)
    host.run("prefetch")
    host.publish(KERNEL, B)
    host.settings(DRIVER_VERSION=B)
    host.publish_index(serial=6, key=private)
    assert "serial 6 and 7 was seen before" in host.run("prefetch", status=32)
    assert not (host.root / f"var/lib/nvidia-driver/pins/{KERNEL}-{B}").exists()


def test_a_pin_from_before_the_key_is_not_believed(host: Host) -> None:
    host.run("boot")
    host.reboot()
    signed(host)
    host.publish_index()
    host.run("boot", status=32)
    assert host.loaded == ""


def test_a_signed_pin_loads_with_no_registry(host: Host) -> None:
    private, _ = signed(host)
    host.publish_index(key=private)
    host.run("boot")
    host.reboot()
    host.down()
    host.run("boot")
    assert host.loaded == A


# What is missing


@pytest.mark.parametrize(
    ("outcome", "reason", "words"),
    [
        (
            "failed",
            'too few arguments to function "pci_resize_resource"',
            'failed: too few arguments to function "pci_resize_resource"',
        ),
        ("excluded", "does not compile", "excluded: does not compile (https://issues.example/344)"),
        ("pending", "not built yet", "yet: pending: not built yet"),
    ],
)
def test_a_missing_image_is_explained_from_the_index(host: Host, outcome: str, reason: str, words: str) -> None:
    host.reboot(NEXT)
    host.note(NEXT, A, outcome, reason=reason, see="https://issues.example/344" if outcome == "excluded" else None)
    host.publish_index()
    said = host.run("boot", status=30)
    assert f"no image for kernel {NEXT} and driver {A}" in said
    assert words in said


def test_a_pair_that_nobody_builds_is_explained_too(host: Host) -> None:
    host.reboot(NEXT)
    host.publish_index()
    assert "the index does not know this pair; ask whoever runs the pipeline" in host.run("boot", status=30)


def test_without_an_index_that_is_said(host: Host) -> None:
    host.reboot(NEXT)
    assert "no registry.example/gpu/driver:index to say why" in host.run("boot", status=30)


def test_a_branch_takes_the_alias_that_the_registry_keeps(host: Host) -> None:
    host.tag(host.a, f"{KERNEL}-535")
    host.settings(DRIVER_VERSION="535")
    host.run("boot")
    assert host.loaded == A


def test_of_a_branch_the_signed_index_gives_the_newest_that_was_built(host: Host) -> None:
    private, _ = signed(host)
    host.publish(KERNEL, "535.54.03")
    host.note(KERNEL, B, "failed", reason="does not compile")
    host.publish_index(key=private)
    host.settings(DRIVER_VERSION="535")
    host.run("boot")
    assert host.loaded == A


def test_only_a_listed_fallback_is_taken_and_told(host: Host) -> None:
    host.settings(DRIVER_VERSION=B)
    host.run("boot", status=30)
    assert host.loaded == ""
    host.settings(DRIVER_FALLBACK=f"550.1.2 {A}")
    said = host.run("boot")
    assert f"taking fallback {A}" in said
    assert host.loaded == A


def test_a_fallback_below_the_last_driver_that_worked_needs_a_word(host: Host) -> None:
    host.run("boot")
    host.reboot(NEXT)
    host.publish(NEXT, OLD)
    host.settings(DRIVER_FALLBACK=OLD)
    assert f"fallback {OLD} is older than {A}, which worked last" in host.run("boot", status=30)
    assert host.loaded == ""
    host.settings(DRIVER_ALLOW_OLDER="1")
    host.run("boot")
    assert host.loaded == OLD


def test_a_refused_login_is_not_taken_for_a_missing_image(host: Host) -> None:
    (host.world / "refusal").write_text(
        "Error: pull access denied, repository does not exist or may require authorization: unauthorized\n"
    )
    host.settings(DRIVER_FALLBACK=OLD)
    assert "unauthorized" in host.run("boot", status=33)


# What fails


def test_an_image_that_does_not_load_gives_way_to_the_one_that_worked(host: Host) -> None:
    host.run("boot")
    bad = host.publish(KERNEL, A, "built anew")
    host.answers(bad, "load", 16, "nvidia.ko (open) was refused: Unknown symbol in module")
    host.run("prefetch")
    host.reboot()
    said = host.run("boot")
    assert f"({bad}) did not load: nvidia.ko (open) was refused: Unknown symbol in module" in said
    assert f"loading what worked last on {KERNEL}: {A} ({host.a})" in said
    assert host.loaded == A
    host.run("status")
    assert f"driver  {A} is loaded instead: {A} ({bad}) did not load: nvidia.ko" in host.out


@pytest.mark.parametrize(
    ("status", "text"), [(10, "no such device"), (12, "570 is loaded"), (15, "kernel lockdown is integrity")]
)
def test_what_another_image_cannot_mend_is_not_tried_with_another_image(host: Host, status: int, text: str) -> None:
    host.run("boot")
    new = host.publish(KERNEL, A, "built anew")
    host.run("prefetch")
    host.answers(new, "load", status, text)
    host.reboot()
    host.run("boot", status=status)
    assert host.log("run").count(f"run {A} load") == 1
    assert host.read("run/nvidia-driver/outcome") == f"{status} {text}"


def test_a_store_torn_by_a_power_cut_is_pulled_again(host: Host) -> None:
    host.run("boot")
    (host.world / "store/images" / host.a.removeprefix("sha256:") / "torn").touch()
    host.reboot()
    assert "removing it and pulling it again" in host.run("boot")
    assert host.loaded == A


def test_a_driver_setting_that_no_registry_could_serve_leaves_the_driver_that_was_there(host: Host) -> None:
    host.run("boot")
    host.reboot()
    host.settings(DRIVER_VERSION=B, DRIVER_BOOT_DEADLINE="0")
    host.down()
    assert f"loading what worked last on {KERNEL}: {A}" in host.run("boot")
    assert host.loaded == A


# Stop and switch


def test_a_stop_unloads_and_takes_the_cdi_specification_back(host: Host) -> None:
    host.run("boot")
    host.run("unload")
    assert host.loaded == ""
    assert not (host.root / "run/cdi/nvidia.yaml").exists()


def test_a_stop_leaves_a_driver_in_use(host: Host) -> None:
    host.run("boot")
    host.answers(host.a, "unload", 13, "the driver cannot be unloaded: processes with an NVIDIA device open: 4711 (python3)")
    assert "4711 (python3)" in host.run("unload", status=13)
    assert host.loaded == A


def test_a_switch_changes_the_driver_where_nothing_uses_it(host: Host) -> None:
    host.run("boot")
    host.publish(KERNEL, B)
    host.settings(DRIVER_VERSION=B)
    host.run("switch")
    assert host.loaded == B
    runs = [line.split()[1:3] for line in host.log("run")]
    assert runs[3:6] == [[A, "unload"], [B, "volume"], [B, "load"]]


def test_a_driver_from_before_the_key_is_unloaded_by_a_signed_image(host: Host) -> None:
    host.run("boot")
    private, _ = signed(host)
    said = host.run("unload", status=30)
    assert f"no signed image for {KERNEL} is here to unload the driver with: 'nvidia-driver-host prefetch' may bring one" in said
    assert host.loaded == A
    host.publish(KERNEL, B)
    host.settings(DRIVER_KEY="/etc/nvidia-driver/driver.pub", DRIVER_VERSION=B)
    host.publish_index(key=private)
    host.run("switch")
    assert host.loaded == B
    assert [line.split()[1:3] for line in host.log("run")][3:6] == [[B, "unload"], [B, "volume"], [B, "load"]]


def test_a_switch_takes_nothing_out_before_the_new_image_is_here(host: Host) -> None:
    host.run("boot")
    host.settings(DRIVER_VERSION=B)
    host.run("switch", status=30)
    assert host.loaded == A


def test_a_switch_waits_for_the_reboot_where_something_uses_the_gpu(host: Host) -> None:
    host.run("boot")
    host.publish(KERNEL, B)
    host.settings(DRIVER_VERSION=B)
    host.answers(host.a, "unload", 13, "the driver cannot be unloaded: 4711 (python3)")
    assert "the new one is taken at the next boot" in host.run("switch", status=13)
    assert host.loaded == A


def test_wrong_use_has_its_own_status_and_help_names_every_command(host: Host) -> None:
    for words in ((), ("frob",), ("boot", "now"), ("status", "--yaml")):
        host.run(*words, status=2)
    host.run("help")
    for word in ("boot", "unload", "prefetch", "switch", "status", "may-reboot", "prune", "fleetlock", "check", "uninstall"):
        assert f"nvidia-driver-host {word}" in host.out


# NVSwitch


def switch(host: Host, driver: str = A) -> None:
    """An NVSwitch, and a volume that holds the Fabric Manager of ``driver``."""
    host.write("sys/bus/pci/devices/0000:00:08.0/vendor", "0x10de")
    host.write("sys/bus/pci/devices/0000:00:08.0/class", "0x068000")
    volume = f"var/lib/nvidia-docker/volumes/nvidia_driver/{driver}"
    host.write(f"{volume}/host-bin/nv-fabricmanager", "#!/bin/sh").chmod(0o755)
    host.write(
        f"{volume}/share/nvidia/nvswitch/fabricmanager.cfg", "DAEMONIZE=1\nTOPOLOGY_FILE_PATH=/usr/share/nvidia/nvswitch\nX=1"
    )
    host.program("systemd-run", NOTED)


def test_the_fabric_manager_of_the_image_runs_on_the_host_after_the_modules_are_in(host: Host) -> None:
    switch(host)
    assert f"started the Fabric Manager of {A}" in host.run("boot")
    assert f"run {A} load NVIDIA_FABRICMANAGER" in host.log("run"), "the loader is told that it runs elsewhere"
    (line,) = host.log("systemd-run")
    assert "--unit=nvidia-fabricmanager" in line
    assert line.endswith(f"/{A}/host-bin/nv-fabricmanager -c /run/nvidia-driver/fabricmanager.cfg")
    share = f"/var/lib/nvidia-docker/volumes/nvidia_driver/{A}/share/nvidia/nvswitch"
    assert host.read("run/nvidia-driver/fabricmanager.cfg").splitlines() == ["DAEMONIZE=0", f"TOPOLOGY_FILE_PATH={share}", "X=1"]


def test_a_fabric_manager_that_the_administrator_runs_is_left_to_him(host: Host) -> None:
    switch(host)
    host.settings(NVIDIA_FABRICMANAGER="host")
    host.run("boot")
    assert host.log("systemd-run") == []


def test_a_fabric_manager_that_does_not_start_has_its_own_status(host: Host) -> None:
    switch(host)
    host.program("systemd-run", "echo 'Failed to start transient service unit' >&2; exit 1")
    assert "needs the Fabric Manager, which did not start: Failed to start transient service unit" in host.run("boot", status=18)


def test_where_the_image_does_not_carry_it_the_loader_says_so(host: Host) -> None:
    switch(host, B)
    host.answers(host.a, "load", 18, "NVSwitch at 0000:00:08.0 needs the Fabric Manager")
    assert "needs the Fabric Manager" in host.run("boot", status=18)
    assert host.log("systemd-run") == []


# SELinux


def test_under_selinux_containers_may_read_the_volume(host: Host) -> None:
    host.program("selinuxenabled", "exit 0")
    host.program("chcon", NOTED)
    host.run("boot")
    volume = host.root / f"var/lib/nvidia-docker/volumes/nvidia_driver/{A}"
    assert host.log("chcon") == [f"chcon -R -t container_ro_file_t {volume}"]


def test_without_selinux_nothing_is_labelled(host: Host) -> None:
    host.program("selinuxenabled", "exit 1")
    host.program("chcon", NOTED)
    host.run("boot")
    assert host.log("chcon") == []
