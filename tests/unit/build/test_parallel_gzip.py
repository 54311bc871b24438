"""gzip in blocks: what others unpack, the same however many threads made it, in bounded memory."""

from __future__ import annotations

import gzip
import random
import subprocess
import threading

import pytest

from pipeline.build.parallel_gzip import BLOCK, Gzip, deflate_is_known


def zipped(data: bytes, *, threads: int = 2, piece: int = 10_240) -> bytes:
    out: list[bytes] = []
    with Gzip(out.append, threads) as member:
        for at in range(0, len(data), piece):
            member.write(data[at : at + piece])
        member.finish()
    return b"".join(out)


def words(size: int) -> bytes:
    dice = random.Random(535)
    return b"".join(dice.choice([b"nvidia ", b"kernel ", b"\0" * 9, dice.randbytes(5)]) for _ in range(size // 5))[:size]


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 12_345])
def test_gzip_unpacks_what_was_put_in(size: int) -> None:
    data = words(size)
    made = zipped(data)
    assert gzip.decompress(made) == data
    assert subprocess.run(["gzip", "-dc"], input=made, capture_output=True, check=True).stdout == data


def test_neither_threads_nor_the_size_of_what_is_written_show_in_the_bytes() -> None:
    data = words(5 * BLOCK + 77)
    one = zipped(data, threads=1)
    assert one == zipped(data, threads=2) == zipped(data, threads=7, piece=333_333) == zipped(data, threads=3, piece=len(data))


def test_blocks_cost_less_than_a_hundredth_of_the_size() -> None:
    data = words(6 * BLOCK)
    assert len(zipped(data)) < 1.01 * len(gzip.compress(data, 6))


def test_an_error_on_the_way_leaves_no_thread_behind() -> None:
    def full(_: bytes) -> None:
        if threading.active_count() > before:
            raise OSError("No space left on device")

    before = threading.active_count()
    with pytest.raises(OSError, match="No space"), Gzip(full, 2) as member:
        member.write(words(9 * BLOCK))
    assert threading.active_count() == before


def test_this_pythons_deflate_is_everybodys() -> None:
    assert deflate_is_known()
