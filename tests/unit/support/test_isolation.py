"""A unit test has nothing of the machine that it runs on but its programs: no setting, no login, no proxy, no language."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
NONSENSE = {
    **dict.fromkeys(("CI", "GITHUB_ACTIONS", "GITHUB_TOKEN", "GH_TOKEN", "GITHUB_API_URL", "NO_COLOR"), "nonsense"),
    **dict.fromkeys(("DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "REGISTRY_AUTH_FILE"), "/nonsense"),
    **dict.fromkeys(("DOCKER_TLS_VERIFY", "DRIVER_INSECURE", "DRIVER_MAX_UNPACKED", "SOURCE_DATE_EPOCH"), "nonsense"),
    **dict.fromkeys(("DRIVER_ARCHIVES", "DRIVER_CACHE", "DRIVER_MIRRORS", "DRIVER_REGISTRY", "DRIVER_VERSION"), "/nonsense"),
    **dict.fromkeys(("DRIVER_KEY", "DRIVER_SIGNING_KEY", "DRIVER_SIGNING_KEY_FILE", "DRIVER_CREDENTIALS"), "/nonsense"),
    **dict.fromkeys(("DRIVER_REGISTRY_USER", "DRIVER_REGISTRY_PASSWORD", "DRIVER_RUNTIME", "DRIVER_FALLBACK"), "nonsense"),
    **dict.fromkeys(("DRIVER_BOOT_DEADLINE", "DRIVER_HOLD_DEADLINE", "KERNEL_MODULE_TYPE", "NVIDIA_DRIVER_MODULES"), "nonsense"),
    **dict.fromkeys(("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "PYTHONPATH"), "/nonsense"),
    **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9"),
    **dict.fromkeys(("LANG", "LC_ALL", "LC_MESSAGES", "LANGUAGE"), "tr_TR.UTF-8"),
    **dict.fromkeys(("APT_CONFIG", "GNUPGHOME", "OPENSSL_CONF", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), "/nonsense"),
    **dict.fromkeys(("ROOT", "HOST_ROOT", "SYSFS", "PROC", "DEV", "RUN", "IMAGE_ROOT"), "/nonsense"),
    **dict.fromkeys(("COLUMNS", "LINES"), "7"),
    "TZ": "Pacific/Kiritimati",
}
SENSITIVE = (
    "support/test_isolation.py::test_a_test_has_no_setting_of_the_machine",
    "registry/test_credentials.py",
    "outcomes/test_table.py",
    "cli/test_workspace.py::test_an_archive_that_nobody_knows_is_one_line_of_every_command",
    "host/test_boot.py::test_a_boot_pulls_fills_the_volume_loads_and_describes_the_devices",
)
"""Tests of what reads most of these; the whole folder passes so too, which takes minutes."""


def test_a_test_has_no_setting_of_the_machine() -> None:
    here = {name for name in os.environ if not name.startswith("PYTEST_")}
    assert here <= {"PATH", "HOME", "TMPDIR", "UPDATE_GOLDEN", "XDG_CACHE_HOME"}  # the last is the test's own
    assert not {".docker", ".config", ".gitconfig"} & set(os.listdir(Path.home()))


def test_what_a_test_sets_counts_for_its_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIVER_REGISTRY", "registry.example/gpu")
    said = subprocess.run(["sh", "-c", "echo $DRIVER_REGISTRY"], capture_output=True, text=True, check=True).stdout
    assert said == "registry.example/gpu\n"


def test_tests_pass_on_a_machine_where_everything_is_set_to_nonsense(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for name in (".docker/config.json", ".config/containers/registries.conf", ".config/containers/auth.json", ".gitconfig"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("nonsense")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--color=no"]
    environ = NONSENSE | {"HOME": str(home), "PATH": os.environ["PATH"]}
    tests = [f"tests/unit/{name}" for name in SENSITIVE]
    done = subprocess.run([*words, *tests], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_tests_of_other_folders_keep_what_the_person_has_set(tmp_path: Path) -> None:
    """pytest calls this folder's hook for every test of a run: end-to-end tests would lose the engine and the cache."""
    (tmp_path / "test_other.py").write_text(
        "import os\n\n\ndef test_it():\n    assert os.environ['DRIVER_CACHE'] == '/somewhere'\n"
    )
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "test_other.py")]
    words += [str(ROOT / "tests/unit/core/test_versions.py")]
    environ = {**os.environ, "DRIVER_CACHE": "/somewhere"}
    done = subprocess.run(words, cwd=ROOT, env=environ, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
