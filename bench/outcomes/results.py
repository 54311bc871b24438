"""What was measured: ``docs/outcomes/results.json``, one row a (kernel, driver, kind), in the order of kernels and drivers.

The file is written whole or not at all after every measurement, so a run that is ended at any moment loses the one it was
at and leaves nothing half. A row whose kernel, patches or modules are no longer those of the lock is measured again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from pipeline.config.lockfile import write
from pipeline.config.records import Kind
from pipeline.core.errors import BadFileError
from pipeline.core.versions import DriverVersion, KernelRelease

FILE: Final = Path("docs/outcomes/results.json")
Outcome = Literal["loads", "compile", "proof", "boot"]
"""``loads``, or the step that failed: the compiler, the static proof, the boot of the real kernel."""
Key = tuple[str, str, str]


class Given(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a measurement is of: sha256 of the kernel's headers, of the driver's sources, and of each patch by its file name."""

    kernel: str
    driver: str
    kind: Kind
    headers: str
    sources: str
    gcc: str
    modules: tuple[str, ...]
    patches: dict[str, str] = {}

    @property
    def key(self) -> Key:
        """Its cell in the table."""
        return self.kernel, self.driver, self.kind


class Row(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One measurement. ``reason`` is the first error, "" where it loads; ``seconds`` from the first input to the last step."""

    given: Given
    outcome: Outcome
    reason: str = ""
    seconds: float = 0.0
    measured: str
    """When, RFC 3339, UTC."""


_decoder: Final = msgspec.json.Decoder(list[Row])


class Results:
    """The rows of one file. Only one process may add to it at a time: a run holds its checkout."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[Key, Row] = {}
        try:
            data = path.read_bytes() if path.exists() else b"[]"
            self._rows = {row.given.key: row for row in _decoder.decode(data)}
        except (OSError, msgspec.DecodeError) as error:
            raise BadFileError(f"{path}: {error}", hint="'python -m bench.outcomes run' writes it; undo the edit") from error

    def __iter__(self) -> Iterator[Row]:
        return iter(sorted(self._rows.values(), key=_order))

    def __len__(self) -> int:
        return len(self._rows)

    def of(self, given: Given) -> Row | None:
        """The row of exactly that; None where there is none, or one of other inputs."""
        row = self._rows.get(given.key)
        return row if row and row.given == given else None

    def add(self, *new: Row) -> None:
        """Keep rows, on disk when this returns. Raises DiskError; then the file is as it was."""
        self._rows |= {row.given.key: row for row in new}
        rows = ",\n ".join(msgspec.json.encode(each).decode() for each in self)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write(self.path, f"[\n {rows}\n]\n".encode())


def _order(row: Row) -> tuple[KernelRelease, DriverVersion, str]:
    return KernelRelease(row.given.kernel), DriverVersion(row.given.driver), row.given.kind
