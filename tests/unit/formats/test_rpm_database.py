"""The kernel in an image, from rpm's own database: real ones, made by rpm out of synthetic packages."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from pipeline.core.errors import IntegrityError
from pipeline.formats import rpm_database
from tests import rpm_databases

needs_rpm = pytest.mark.skipif(not rpm_databases.installed(), reason=rpm_databases.MISSING)


@needs_rpm
@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_the_package_named_exactly_kernel_gives_version_release_and_architecture(tmp_path: Path, arch: str) -> None:
    found = ["kernel-core 6.19.5 300.fc44", "kernel 6.19.5 300.fc44", "kernel-modules 6.19.5 300.fc44", "bash 5.3 1.fc44"]
    database = rpm_databases.database(tmp_path / "rpm", *found, arch=arch)
    assert rpm_database.versions(database, "kernel", "an image") == [f"6.19.5-300.fc44.{arch}"]
    assert rpm_database.versions(database, "kernel-rt", "an image") == []


@needs_rpm
def test_two_kernels_are_both_told(tmp_path: Path) -> None:
    database = rpm_databases.database(tmp_path / "rpm", "kernel 6.19.5 300.fc44", "kernel 6.19.4 300.fc44")
    assert rpm_database.versions(database, "kernel", "x") == ["6.19.4-300.fc44.x86_64", "6.19.5-300.fc44.x86_64"]


@needs_rpm
def test_reading_changes_no_byte_and_needs_no_writable_folder(tmp_path: Path) -> None:
    database = rpm_databases.database(tmp_path / "rpm", "kernel 6.19.5 300.fc44")
    alone = tmp_path / "alone" / "file"
    alone.parent.mkdir()
    alone.write_bytes(database.read_bytes())
    before = alone.read_bytes()
    alone.parent.chmod(0o500)
    assert len(rpm_database.versions(alone, "kernel", "x")) == 1
    assert alone.read_bytes() == before
    assert list(alone.parent.iterdir()) == [alone]


def table(place: Path, *blobs: object) -> Path:
    with sqlite3.connect(place) as connection:
        connection.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob)")
        connection.execute("CREATE TABLE Name (key TEXT, hnum INTEGER, idx INTEGER)")
        for number, blob in enumerate(blobs):
            connection.execute("INSERT INTO Packages VALUES (?, ?)", (number, blob))
            connection.execute("INSERT INTO Name VALUES ('kernel', ?, 0)", (number,))
    connection.close()
    return place


@pytest.mark.parametrize("data", [b"", b"SQLite format 3\0", b"<html>", bytes(4096)])
def test_what_is_no_database_is_refused(tmp_path: Path, data: bytes) -> None:
    place = tmp_path / "rpmdb.sqlite"
    place.write_bytes(data)
    with pytest.raises(IntegrityError, match="an image"):
        rpm_database.versions(place, "kernel", "an image")


@pytest.mark.parametrize("blob", [b"", b"\x00" * 7, b"\xff" * 64, b"\x00\x00\x00\x01\x00\x00\x00\x04" + b"\xff" * 20, "text", 7])
def test_a_header_that_is_none_is_refused(tmp_path: Path, blob: object) -> None:
    with pytest.raises(IntegrityError):
        rpm_database.versions(table(tmp_path / "rpmdb.sqlite", blob), "kernel", "an image")


def test_a_header_of_another_package_than_the_table_says_is_not_taken(tmp_path: Path) -> None:
    empty = b"\x00\x00\x00\x00\x00\x00\x00\x00"
    assert rpm_database.versions(table(tmp_path / "rpmdb.sqlite", empty), "kernel", "an image") == []
