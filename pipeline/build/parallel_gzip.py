"""gzip on every processor, with the same bytes on any number of them (RFC 1951, RFC 1952).

What comes is cut into blocks of one size, each deflated on its own with the 32 KiB before it as its dictionary and ended at
a byte's border, so one member's stream is the blocks one after another: how many threads worked on it cannot be seen.
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

LEVEL: Final = 6
BLOCK: Final = 1 << 20
_WINDOW: Final = 32 << 10
_HEADER: Final = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
"""Deflate, no name, no time, an unknown system."""
_KNOWN: Final = "24e64d5b"
_ROOM: Final = threading.BoundedSemaphore(2 * len(os.sched_getaffinity(0)))
"""Blocks that all members of this process may have at work together: enough for every processor, however many pairs run."""


class Gzip:
    """One gzip member, given to ``put`` piece by piece as it is ready. A context manager: leaving it stops its threads.

    At most twice as many blocks as ``threads`` (the processors this process may use) are held at once; where other members
    hold as many, this one deflates its blocks itself, one after another, so that memory does not grow with their number.
    """

    def __init__(self, put: Callable[[bytes], object], threads: int = 0) -> None:
        self._put, self._threads = put, threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self._threads, "deflate")
        self._at_work: deque[Future[bytes]] = deque()
        self._waiting, self._before = bytearray(), b""
        self._crc, self._size = 0, 0
        put(_HEADER)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)
        while self._at_work:  # after an error
            self._at_work.popleft()
            _ROOM.release()

    def write(self, data: bytes) -> None:
        """Take ``data``, of any length."""
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        self._waiting += data
        while len(self._waiting) > BLOCK:  # the last block is the one that ends the stream, so one stays back
            self._begin(bytes(self._waiting[:BLOCK]))
            del self._waiting[:BLOCK]

    def finish(self) -> None:
        """End the member; nothing may be written after it."""
        last = _deflated(bytes(self._waiting), self._before, zlib.Z_FINISH)
        self._put_oldest(len(self._at_work))
        self._put(last)
        self._put(struct.pack("<II", self._crc, self._size & 0xFFFFFFFF))

    def _begin(self, block: bytes) -> None:
        if len(self._at_work) >= 2 * self._threads:
            self._put_oldest(1)
        if _ROOM.acquire(blocking=False):
            self._at_work.append(self._pool.submit(_deflated, block, self._before, zlib.Z_SYNC_FLUSH))
        else:
            self._put_oldest(len(self._at_work))
            self._put(_deflated(block, self._before, zlib.Z_SYNC_FLUSH))
        self._before = block[-_WINDOW:]

    def _put_oldest(self, count: int) -> None:
        for _ in range(count):
            made = self._at_work[0].result()
            self._at_work.popleft()
            _ROOM.release()
            self._put(made)


def _deflated(block: bytes, before: bytes, flush: int) -> bytes:
    made = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_DEFAULT_STRATEGY, before)
    return made.compress(block) + made.flush(flush)


def deflate_is_known() -> bool:
    """True where this Python's zlib makes the same bytes as everybody's (zlib-ng and some vendors' builds do not)."""
    sample = b"".join(hashlib.sha256(bytes([n])).digest() + b"nvidia driver image " * (n % 7) for n in range(256)) * 16
    return hashlib.sha256(_deflated(sample, sample[:_WINDOW], zlib.Z_FINISH)).hexdigest()[:8] == _KNOWN
