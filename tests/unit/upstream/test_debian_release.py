"""InRelease: nothing comes through that a key of the keyring did not sign. Real gpg, throwaway keys."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.core.errors import IntegrityError, PipelineError, UpstreamDataError
from pipeline.formats.openpgp import Keys, cleartext
from pipeline.upstream.debian.release import parse_release, verify_inrelease
from tests.signed_archive import Key

TEXT = b"Suite: oldstable\nCodename: bookworm\nDate: Sat, 11 Jul 2026 10:16:37 UTC\nSHA256:\n " + b"0" * 64 + b" 12 main/x\n"


def test_the_signed_text_comes_back(signing_key: Key) -> None:
    assert verify_inrelease(signing_key.clearsign(TEXT), signing_key.keyring, "here").strip() == TEXT.strip()


def test_one_changed_letter_is_refused(signing_key: Key) -> None:
    changed = signing_key.clearsign(TEXT).replace(b"bookworm", b"bookwork")
    with pytest.raises(IntegrityError, match="here: its signature is wrong"):
        verify_inrelease(changed, signing_key.keyring, "here")


def test_another_key_is_refused(signing_key: Key) -> None:
    with Key() as other, pytest.raises(IntegrityError, match="no key of the keyring signed it"):
        verify_inrelease(other.clearsign(TEXT), signing_key.keyring, "here")


def test_one_known_key_is_enough_where_several_signed(signing_key: Key) -> None:
    with Key() as other:
        both = other.clearsign_with(signing_key, TEXT)
    assert verify_inrelease(both, signing_key.keyring, "here").strip() == TEXT.strip()


def test_a_key_that_has_expired_is_refused(signing_key: Key) -> None:
    with Key(at="20200101T000000") as old, pytest.raises(IntegrityError, match="EXPKEYSIG"):
        verify_inrelease(old.clearsign(TEXT), old.keyring, "here")


def fingerprints(key: Key) -> frozenset[str]:
    listed = subprocess.run(
        ["gpg", "--batch", "--show-keys", "--with-colons", str(key.keyring)], check=True, capture_output=True, text=True
    ).stdout
    return frozenset(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))


def test_a_key_that_has_expired_does_not_count_because_an_unnamed_one_of_the_same_file_still_holds(signing_key: Key) -> None:
    with Key(at="20200101T000000") as old:
        material = old.keyring.read_bytes() + signing_key.keyring.read_bytes()
        signed = [key.clearsign(TEXT) for key in (old, signing_key)]
        text = signed[0][: signed[0].index(b"-----BEGIN PGP SIGNATURE")]
        pairs = zip((old, signing_key), signed, strict=True)
        both = text + signing_key.armoured(b"".join(key.signature(one) for key, one in pairs))
        named = {name: Keys(material, name, fingerprints(key)) for name, key in (("old", old), ("new", signing_key))}
        assert cleartext(both, named["new"], "here").strip() == TEXT.strip()
        with pytest.raises(IntegrityError, match=r"here: no key that still holds signed it \(EXPKEYSIG\)"):
            cleartext(both, named["old"], "here")


def test_a_wrong_signature_is_refused_though_another_one_is_right(signing_key: Key, tmp_path: Path) -> None:
    with Key() as other:
        signed, wrong = signing_key.clearsign(TEXT), other.clearsign(TEXT.replace(b"bookworm", b"trixie"))
        both = signing_key.signature(signed) + signing_key.signature(wrong)
        keyring = tmp_path / "both.gpg"
        keyring.write_bytes(signing_key.keyring.read_bytes() + other.keyring.read_bytes())
        text = signed[: signed.index(b"-----BEGIN PGP SIGNATURE")]
        again = text + signing_key.armoured(signing_key.signature(signed))
        assert verify_inrelease(again, keyring, "here").strip() == TEXT.strip()
        with pytest.raises(IntegrityError, match="its signature is wrong"):
            verify_inrelease(text + signing_key.armoured(both), keyring, "here")


@pytest.mark.parametrize("where", ["before", "after", "between"])
def test_text_around_the_signature_is_refused(signing_key: Key, where: str) -> None:
    signed, extra = signing_key.clearsign(TEXT), b"Codename: evil\n"
    data = {"before": extra + signed, "after": signed + extra, "between": signed + extra + signed}[where]
    with pytest.raises(IntegrityError, match="is not one signed message"):
        verify_inrelease(data, signing_key.keyring, "here")


@pytest.mark.parametrize("data", [b"", TEXT, b"<html>not found</html>", b"-----BEGIN PGP SIGNED MESSAGE-----\n\nx\n"])
def test_what_is_not_signed_at_all_is_refused(signing_key: Key, data: bytes) -> None:
    with pytest.raises(IntegrityError):
        verify_inrelease(data, signing_key.keyring, "here")


def test_an_empty_signature_is_refused(signing_key: Key) -> None:
    data = b"-----BEGIN PGP SIGNED MESSAGE-----\n\n" + TEXT
    data += b"-----BEGIN PGP SIGNATURE-----\n\n-----END PGP SIGNATURE-----\n"
    with pytest.raises(IntegrityError):
        verify_inrelease(data, signing_key.keyring, "here")


def test_a_keyring_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"the keyring .*/none\.gpg is not there: install debian-archive-keyring"):
        verify_inrelease(b"", tmp_path / "none.gpg", "here")


def test_a_machine_without_gpgv_is_told_so(signing_key: Key, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("gpgv") is None
    with pytest.raises(PipelineError, match="gpgv is not installed"):
        verify_inrelease(b"", signing_key.keyring, "here")


def test_names_date_and_sums_are_read() -> None:
    text = b"Acquire-By-Hash: yes\nComponents: main updates/contrib\nMD5Sum:\n " + b"1" * 64 + b" 9 main/md5\n" + TEXT
    release = parse_release(text, "here")
    assert (release.suite, release.codename, release.date) == ("oldstable", "bookworm", "2026-07-11T10:16:37Z")
    assert release.by_hash
    assert release.components == {"main", "contrib"}
    assert release.hashes == {"main/x": ("0" * 64, 12)}


@pytest.mark.parametrize(
    ("date", "read"),
    [
        ("Sat, 11 Jul 2026 10:16:37 +0200", "2026-07-11T08:16:37Z"),
        ("Sat, 11 Jul 2026 10:16:37 -0000", "2026-07-11T10:16:37Z"),
    ],
)
def test_the_date_is_in_utc_whatever_zone_it_names(date: str, read: str) -> None:
    assert parse_release(TEXT.replace(b"Sat, 11 Jul 2026 10:16:37 UTC", date.encode()), "here").date == read


@pytest.mark.parametrize(
    ("taken", "given", "said"),
    [
        (b"Codename", b"Cod", "has no field 'Codename'"),
        (b"Date", b"Dat", "has no field 'Date'"),
        (b"Sat, 11 Jul 2026", b"some day", "its date cannot be read"),
        (b"SHA256", b"SHA1", "lists no SHA256 sums"),
    ],
)
def test_a_release_file_that_lacks_something_is_refused(taken: bytes, given: bytes, said: str) -> None:
    with pytest.raises(UpstreamDataError, match=f"here.*{said}"):
        parse_release(TEXT.replace(taken, given), "here")
