"""``supported-gpus.json``: two real lists (of 525, and of a driver of 2021), and the table that a host greps.

No list with ``gsp_proprietary_supported`` was recorded: those here are synthetic.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import UpstreamDataError
from pipeline.upstream.nvidia import supported_gpus

RECORDED = Path(__file__).parents[4] / "shared" / "upstream" / "nvidia" / "supported-gpus"
recorded = pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded upstream metadata is not beside this checkout")
URL = "NVIDIA-Linux-x86_64-580.10.run:supported-gpus.json"
OF_525 = "focal-nvidia-driver-525-supported-gpus.json"
OF_2021 = "supported-gpus.json"


def real(name: str) -> bytes:
    return (RECORDED / name).read_bytes()


def chip(devid: str, *features: str, **more: Any) -> dict[str, Any]:
    return {"devid": devid, "name": f"GPU {devid}", "features": list(features), **more}


def board(devid: str, subdevid: str, *features: str, **more: Any) -> dict[str, Any]:
    return chip(devid, *features, subvendorid="0x10DE", subdevid=subdevid, **more)


def table(*chips: dict[str, Any]) -> list[str]:
    gpus = supported_gpus.parse(json.dumps({"chips": chips}).encode(), URL)
    return supported_gpus.kind_table(gpus.chips).decode().splitlines()


@recorded
def test_the_recorded_list_of_525_has_2127_chips_of_which_638_may_be_open() -> None:
    data = real(OF_525)
    gpus = supported_gpus.parse(data, URL)
    kinds = Counter(chip.kinds for chip in gpus.chips)
    assert kinds == {"both": 638, "proprietary": 305, "legacy": 1184}
    assert (data.count(b'"devid"'), data.count(b'"kernelopen"'), data.count(b'"legacybranch"')) == (2127, 638, 1184)
    assert gpus.warnings == ()


@recorded
def test_the_recorded_lists_name_the_legacy_branches() -> None:
    gpus = supported_gpus.parse(real(OF_525), URL)
    assert Counter(chip.legacy for chip in gpus.chips if chip.legacy) == {
        "470": 151, "390": 519, "367": 3, "340": 278, "304": 133, "173.14": 43, "96.43": 44, "71.86": 13,
    }  # fmt: skip


@recorded
def test_the_list_of_2021_is_older_than_open_modules_so_nothing_in_it_is_open() -> None:
    gpus = supported_gpus.parse(real(OF_2021), URL)
    assert Counter(chip.kinds for chip in gpus.chips) == {"proprietary": 830, "legacy": 1184}


@recorded
def test_the_table_of_525_has_a_line_a_device_and_the_known_gpus_right() -> None:
    lines = supported_gpus.kind_table(supported_gpus.parse(real(OF_525), URL).chips).decode().splitlines()
    assert len(lines) == len({chip["devid"] for chip in json.loads(real(OF_525))["chips"]}) == 1061
    assert lines == sorted(lines)
    assert {"10de:2330 both", "10de:1db6 proprietary", "10de:1b06 proprietary", "10de:102d legacy 470"} <= set(lines)
    assert Counter(line.split(" ", 1)[1] for line in lines)["both"] == 182


def test_open_alone_where_the_list_knows_the_word_for_both_and_does_not_say_it() -> None:
    assert table(
        chip("0x2B85", "kernelopen"),
        chip("0x2330", "kernelopen", "gsp_proprietary_supported"),
        chip("0x1B06", "hdmi4k"),
    ) == ["10de:1b06 proprietary", "10de:2330 both", "10de:2b85 open"]


def test_a_list_without_that_word_is_older_than_gpus_that_need_open_modules() -> None:
    assert table(chip("0x2330", "kernelopen")) == ["10de:2330 both"]


def test_a_legacy_branch_stands_in_the_table_without_its_xx() -> None:
    assert table(chip("0x0020", legacybranch="71.86.xx"), chip("0x102D", legacybranch="470.xx")) == [
        "10de:0020 legacy 71.86",
        "10de:102d legacy 470",
    ]


def test_boards_with_their_devices_answer_have_no_line_of_their_own() -> None:
    assert table(chip("0x2330", "kernelopen"), board("0x2330", "0x16C0", "kernelopen")) == ["10de:2330 both"]


def test_a_board_with_another_answer_has_its_own_line_beside_its_devices() -> None:
    assert table(chip("0x1DB6"), board("0x1DB6", "0x1212", "kernelopen")) == [
        "10de:1db6 proprietary",
        "10de:1db6:10de:1212 both",
    ]


def test_a_device_known_by_boards_that_agree_has_one_line_and_by_boards_that_differ_one_for_each() -> None:
    assert table(board("0x05E7", "0x0595"), board("0x05E7", "0x0597")) == ["10de:05e7 proprietary"]
    assert table(board("0x05E7", "0x0595"), board("0x05E7", "0x0597", legacybranch="340.xx")) == [
        "10de:05e7:10de:0595 proprietary",
        "10de:05e7:10de:0597 legacy 340",
    ]


@pytest.mark.parametrize(
    ("ids", "answer"),
    [
        ("10de:1db6:10de:1212", "10de:1db6:10de:1212 both"),
        ("10de:1db6:10de:ffff", "10de:1db6 proprietary"),
        ("10de:1db:10de:1212", ""),
        ("10de:ffff:10de:ffff", ""),
    ],
)
def test_a_posix_shell_finds_a_gpu_with_grep(tmp_path: Path, ids: str, answer: str) -> None:
    (tmp_path / "kinds").write_text("\n".join(table(chip("0x1DB6"), board("0x1DB6", "0x1212", "kernelopen"))) + "\n")
    script = 'grep "^$1 " kinds || grep "^${1%:*:*} " kinds'
    found = subprocess.run(["sh", "-c", script, "sh", ids], check=False, capture_output=True, text=True, cwd=tmp_path)
    assert found.stdout.strip() == answer


def test_a_list_that_contradicts_itself_makes_no_table() -> None:
    with pytest.raises(UpstreamDataError, match="10de:2330 has two entries"):
        table(chip("0x2330", "kernelopen"), chip("0x2330"))


def test_half_a_subsystem_and_an_unknown_legacy_branch_are_left_out_and_counted() -> None:
    chips = [chip("0x2330"), chip("0x2331", subdevid="0x0001"), chip("0x2332", legacybranch="soon")]
    gpus = supported_gpus.parse(json.dumps({"chips": chips}).encode(), URL)
    assert [found.device for found in gpus.chips] == ["2330"]
    assert gpus.warnings == (
        f"{URL}: 1 skipped, half a subsystem id: 0x2331 GPU 0x2331",
        f"{URL}: 1 skipped, no branch in legacybranch: 0x2332 soon",
    )


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"chips": []}', b'{"chips": [{"devid": "2330", "name": "", "features": []}]}', b"<html>"]
)
def test_another_document_is_an_error(data: bytes) -> None:
    with pytest.raises(UpstreamDataError, match=r"supported-gpus\.json"):
        supported_gpus.parse(data, URL)


IDS = st.sampled_from(["0x2330", "0x1DB6", "0x10de", "2330", "0x23300"])
FEATURES = st.lists(st.sampled_from(["kernelopen", "gsp_proprietary_supported", "hdmi4k"]), max_size=3)
CHIPS = st.fixed_dictionaries(
    {"devid": IDS, "name": st.text(max_size=5), "features": FEATURES},
    optional={"legacybranch": st.sampled_from(["470.xx", "x"]), "subdevid": IDS, "subvendorid": IDS},
)


@given(st.lists(CHIPS, max_size=6))
def test_any_list_gives_a_table_of_that_form_or_our_own_error(chips: list[dict[str, Any]]) -> None:
    try:
        lines = table(*chips)
    except UpstreamDataError:
        return
    ids = [line.split(" ")[0] for line in lines]
    assert len(set(ids)) == len(ids)
    assert all(len(line.split(" ")) == (3 if " legacy " in line else 2) for line in lines)
