"""Every error that ends a run or refuses an input, with the exit status it stands for.

Status: 3 wrong use or a bad file; else 2 the system could not do its work (network, engine, registry, disk);
else 1 some selected pair failed (an outcome, never an exception); else 0.
"""

from __future__ import annotations

import errno
from typing import ClassVar, Final

NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""A disk that is full, or a user's share of it."""
ROOM_HINT: Final = "free some disk space, or mend its rights"
"""For a DiskError of a file or folder of the checkout."""


class PipelineError(Exception):
    """What went wrong, with which input, and what to do: always one line.

    ``message`` names the thing and the input; ``hint`` says what to do about it.
    """

    exit_status: ClassVar[int] = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message = one_line(message)
        self.hint = one_line(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message


class UsageError(PipelineError):
    """A command, option, pattern or environment variable that cannot be meant."""

    exit_status = 3


class BadFileError(PipelineError):
    """A file of the project (lock, wishes, template, settings) that cannot be read as what it should be."""

    exit_status = 3


class NetworkError(PipelineError):
    """An upstream server, mirror or archive did not give what was asked for."""


class NotFoundError(NetworkError):
    """Every address asked for a thing answered 404 or 410: it is not there, and asking again will not help."""


class UpstreamDataError(PipelineError):
    """An upstream answered, but with something that is not what its format says."""


class IntegrityError(PipelineError):
    """Bytes arrived whose size, hash or signature is not the pinned one."""


class EngineError(PipelineError):
    """The container engine is absent, refused, or died."""


class RegistryError(PipelineError):
    """The registry is absent, refused, or answered nonsense. Never used for 'there is no such image'."""


class RegistryFullError(RegistryError):
    """The registry has no room for what is pushed."""


class LoginError(RegistryError):
    """The registry wants a login, another one, or one with more rights."""


class DeleteRefusedError(RegistryError):
    """The registry does not delete: another way must be found, or a person do it."""


class DiskError(PipelineError):
    """The machine's disk is full or not writable."""


def no_room(error: OSError) -> DiskError:
    """``error`` in words where it is one of ``NO_ROOM``, wherever the file was written; any other is raised as it is."""
    if error.errno not in NO_ROOM:
        raise error
    return DiskError(f"{error.filename or 'a file below build/'}: {error.strerror}", hint=ROOM_HINT)


class PairFailed(PipelineError):
    """One pair could not be built or proved: an outcome ``failed`` with this message as its reason."""

    exit_status = 1


def one_line(text: str) -> str:
    """``text`` on one line, control characters shown as spaces, at most 600 characters."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat if len(flat) <= 600 else flat[:597] + "..."
