"""When a run begins no further pair: every one of them would take its minutes and meet the same end."""

from __future__ import annotations

import threading
from typing import Final, Literal, TypeAlias

from ..core.errors import DiskError, EngineError, LoginError, PipelineError, RegistryError, RegistryFullError

_AT_ONCE: Final = (DiskError, RegistryFullError, LoginError)
"""What holds for every pair until somebody has done something about it."""
_IN_A_ROW: Final = (EngineError, RegistryError)
"""What may pass: so many times, one after the other, that it does not."""
_TIMES: Final = 3

Met: TypeAlias = Literal["cause", "more", "its own"]
"""Of what a pair met: why nothing more is begun, more of that, or something of its own."""


class Brake:
    """What a run's pairs met. Threads may share it. ``at_once``: how many pairs are built at once."""

    def __init__(self, at_once: int = 1) -> None:
        self._lock = threading.Lock()
        self._most = max(_TIMES, at_once + 1)
        """More than the pairs at work: all of these may have met one short outage."""
        self._row = 0
        self._begun = 0
        self.cause: PipelineError | None = None
        """Why nothing more is begun; None while it is."""

    @property
    def begun(self) -> int:
        """How many pairs were."""
        return self._begun

    def begins(self) -> bool:
        """True where one more pair is to be begun, which counts it."""
        with self._lock:
            self._begun += self.cause is None
            return self.cause is None

    def went_well(self) -> None:
        """A pair came to its outcome."""
        with self._lock:
            self._row = 0

    def met(self, error: PipelineError) -> Met:
        """Note what a pair met. Pairs that meet the same at one moment have one cause between them: the rest is more of it."""
        with self._lock:
            if self._explains(error):
                return "more"
            if self.cause is not None or not isinstance(error, (*_AT_ONCE, *_IN_A_ROW)):
                return "its own"
            self._row += 1
            if isinstance(error, _AT_ONCE) or self._row >= self._most:
                self.cause = error
                return "cause"
            return "its own"

    def explains(self, error: PipelineError) -> bool:
        """True where ``error`` is more of the cause, which was said: a disk, an engine or a registry does not work."""
        with self._lock:
            return self._explains(error)

    def _explains(self, error: PipelineError) -> bool:
        alike = next((kind for kind in (DiskError, *_IN_A_ROW) if isinstance(self.cause, kind)), None)
        return alike is not None and isinstance(error, alike)
