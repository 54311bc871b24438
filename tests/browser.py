"""A real browser for tests: headless Chromium driven through chromedriver (W3C WebDriver, plain HTTP on loopback)."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

PROGRAMS: Final = ("chromium", "chromedriver")
MISSING: Final = "chromium and chromium-driver are not installed (./doit.sh test installs them)"
FLAGS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
KEYS: Final = {
    "Enter": "\ue007",
    "Escape": "\ue00c",
    "Left": "\ue012",
    "Up": "\ue013",
    "Right": "\ue014",
    "Down": "\ue015",
    "Tab": "\ue004",
}
_ELEMENT: Final = "element-6066-11e4-a52e-4f735466cecf"


def installed() -> bool:
    """True where a browser can be run here."""
    return all(shutil.which(program) for program in PROGRAMS)


class Browser:
    """One session."""

    def __init__(self, port: int, root: Path) -> None:
        self._port = port
        options = {"args": [*FLAGS, f"--user-data-dir={root / 'profile'}"]}
        wanted = {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}
        self._session = ""
        self._session = "/session/" + self.ask("POST", "/session", {"capabilities": wanted})["sessionId"]

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One WebDriver command; its value."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=120)
        try:
            data = json.dumps(body if body is not None else {}) if method == "POST" else None
            connection.request(method, f"{self._session}{path}", data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            value = json.loads(answer.read())["value"]
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {value}")
        return value

    def open(self, page: Path, fragment: str = "") -> None:
        """Load a file."""
        self.ask("POST", "/url", {"url": "about:blank"})
        self.ask("POST", "/url", {"url": f"{page.as_uri()}{fragment}"})

    def run(self, script: str, *words: Any) -> Any:
        """What JavaScript ``script`` returns."""
        return self.ask("POST", "/execute/sync", {"script": script, "args": list(words)})

    def click(self, css: str) -> None:
        """Click the element that ``css`` finds, as a person with a mouse."""
        found = self.ask("POST", "/element", {"using": "css selector", "value": css})[_ELEMENT]
        self.ask("POST", f"/element/{found}/click")

    def keys(self, *keys: str) -> None:
        """Press and release each of ``keys``: a name of KEYS, or text."""
        pressed = [c for key in keys for c in KEYS.get(key, key)]
        actions = [{"type": kind, "value": c} for c in pressed for kind in ("keyDown", "keyUp")]
        self.ask("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def devtools(self, command: str, **values: Any) -> Any:
        """A command of Chromium's own protocol."""
        return self.ask("POST", "/goog/cdp/execute", {"cmd": command, "params": values})

    def window(self, width: int, height: int) -> None:
        """Give the page a viewport of this size."""
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)

    def scheme(self, scheme: str) -> None:
        """Prefer ``light`` or ``dark``."""
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, place: Path) -> bytes:
        """The viewport as PNG, also written to ``place``."""
        data = base64.b64decode(self.ask("GET", "/screenshot"))
        place.write_bytes(data)
        return data

    def complaints(self) -> list[str]:
        """What the page's console said since the last time."""
        return [row["message"] for row in self.ask("POST", "/se/log", {"type": "browser"})]

    def end(self) -> None:
        """Close the browser."""
        self.ask("DELETE", "")


@contextmanager
def running_browser(root: Path) -> Iterator[Browser]:
    """A browser with an empty profile below ``root``; it is ended with the block."""
    root.mkdir(parents=True, exist_ok=True)
    log = root / "chromedriver.log"
    with log.open("wb") as out:
        process = subprocess.Popen(["chromedriver", "--port=0"], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        browser = Browser(_port(process, log), root)
        try:
            yield browser
        finally:
            browser.end()
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        _, found, rest = log.read_text(errors="replace").partition("started successfully on port ")
        if found and rest.strip():
            return int(rest.split(".")[0])
        time.sleep(0.05)
    raise RuntimeError(f"chromedriver does not start:\n{log.read_text(errors='replace')[-2000:]}")
