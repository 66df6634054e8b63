from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchead.archive.left_out import NO_FILES, SYMBOLIC_LINKS
from patchead.archive.tar import list_tar, read_tar
from patchead.errors import ArchiveError
from tests.helpers.sample_files import AWKWARD, png, sparse_tar, tar


def listed(data: bytes, *columns: str) -> tuple[list[dict], int, str | None]:
    result = list_tar(io.BytesIO(data), columns)
    return result.members.to_pylist(), result.ignored, result.broken


def keys(data: bytes) -> list[str]:
    return [member["key"] for member in listed(data)[0]]


def read(data: bytes, *wanted: str) -> dict[str, bytes | ArchiveError]:
    return {wanted[index]: content for index, content in read_tar(io.BytesIO(data), wanted)}


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_images_are_listed_in_order_and_read_by_name() -> None:
    names = ["z.png", *AWKWARD, "a/" * 60 + "long.jpg", "./dot/x.TIFF"]
    data = tar([(name, png(place)) for place, name in enumerate(names)])
    plain = [name.removeprefix("./") for name in names]
    members, ignored, broken = listed(data)
    assert [member["key"] for member in members] == plain
    assert [member["size"] for member in members] == [len(png(place)) for place in range(len(names))]
    assert (ignored, broken) == (0, None)
    assert read(data, *reversed(plain)) == {name: png(place) for place, name in enumerate(plain)}


def test_everything_else_is_counted_and_the_hidden_is_not() -> None:
    links = [special("l.png", tarfile.SYMTYPE, "/etc/passwd"), special("h.png", tarfile.LNKTYPE, "a.png")]
    devices = [
        special("d.png", tarfile.CHRTYPE),
        special("p.png", tarfile.FIFOTYPE),
        special("folder", tarfile.DIRTYPE),
    ]
    data = tar([("a.png", png()), ("b.cls", b"1"), ("._a.png", b"1"), ("__MACOSX/a.png", b"1"), *links, *devices])
    assert keys(data) == ["a.png", "h.png"]
    assert listed(data)[1] == 4
    assert read(data, "l.png") == {}


def test_a_hard_link_is_its_image_under_another_name() -> None:
    links = [
        special("again/h.png", tarfile.LNKTYPE, "./a.png"),
        special("chain.PNG", tarfile.LNKTYPE, "again/h.png"),
        special("nothing.png", tarfile.LNKTYPE, "missing.png"),
        special("text.png", tarfile.LNKTYPE, "notes.txt"),
        special("soft.png", tarfile.SYMTYPE, "a.png"),
    ]
    data = tar([("a.png", png()), ("notes.txt", b"1"), *links])
    found = list_tar(io.BytesIO(data), ())
    places = {
        member["key"]: (member["size"], member["offset"], member["error"]) for member in found.members.to_pylist()
    }
    assert list(places) == ["a.png", "again/h.png", "chain.PNG"]
    assert set(places.values()) == {(len(png()), 512, None)}
    assert found.left_out.counts == {".txt": 1, SYMBOLIC_LINKS: 1, NO_FILES: 2}
    assert found.left_out.examples[NO_FILES] == ["nothing.png", "text.png"]


def test_tars_joined_by_cat_are_one() -> None:
    parts = [tar([(f"{part}-{number}.png", png(number)) for number in range(3)]) for part in "abc"]
    short = tar([("d.png", png())])[:1536] + bytes(1024)  # without padding to 10 KiB
    for joined in (b"".join(parts), parts[0] + short + parts[1] + bytes(2_048_000) + parts[2]):
        members, ignored, broken = listed(joined)
        assert (ignored, broken) == (0, None)
        names = [f"{part}-{number}.png" for part in "abc" for number in range(3)]
        assert sorted(member["key"] for member in members if member["key"] != "d.png") == names
        for member in members:
            assert joined[member["offset"] :][: member["size"]] == png(
                int(member["key"][2]) if member["key"] != "d.png" else 0
            )
        assert read(joined, *names) == {name: png(int(name[2])) for name in names}


def test_what_follows_an_end_marker_and_is_no_tar_is_told() -> None:
    members, _, broken = listed(tar([("a.png", png())]) + b"what somebody appended".ljust(512, b"."))
    assert [member["key"] for member in members] == ["a.png"]
    assert broken and "after 1 members" in broken


@pytest.mark.parametrize("name", ["../../x.png", "/etc/x.png", "a/../../x.png"])
def test_an_unsafe_name_is_a_member_with_an_error(name: str) -> None:
    data = tar([(name, png()), ("ok.png", png(1))])
    members, _, broken = listed(data)
    assert broken is None
    assert members[0]["key"] == name
    assert "unsafe member name" in members[0]["error"]
    assert name in members[0]["error"]
    assert members[1] == {"key": "ok.png", "size": len(png(1)), "offset": 1536, "error": None}


def test_sidecars_give_columns_wherever_they_stand() -> None:
    data = tar(
        [
            ("n/a.json", json.dumps({"night": "2026-11-21", "line": 4, "box": [1, 2]}).encode()),
            ("n/a.png", png()),
            ("n/b.seg.png", png()),
            ("n/b.json", json.dumps({"night": "2026-11-22"}).encode()),
            ("n/c.v2.png", png()),
            ("n/c.json", json.dumps({"night": "no"}).encode()),
            ("n/c.v2.json", json.dumps({"night": "2026-11-23"}).encode()),
            ("n/d.png", png()),
            ("n/d.json", b"{broken"),
            ("n/e.png", png()),
            ("n/e.json", b"[" * 100_000),
            ("n/f.png", png()),
            ("n/f.json", b'{"night": "\\ud800"}'),
        ]
    )
    members, ignored, _ = listed(data, "night", "line", "box")
    nights = {member["key"]: member["column:night"] for member in members}
    assert nights == {
        "n/a.png": "2026-11-21",
        "n/b.seg.png": "2026-11-22",
        "n/c.v2.png": "2026-11-23",
        "n/d.png": None,
        "n/e.png": None,
        "n/f.png": "\\ud800",
    }
    assert (members[0]["column:line"], members[0]["column:box"]) == ("4", None)
    assert ignored == 0


@pytest.mark.parametrize("cut", [0, 1, 300, 600, 1024, 1536, 2048, 2200])
def test_a_truncated_tar_keeps_the_members_before_the_cut(cut: int) -> None:
    whole = tar([(f"{number}.png", bytes([number]) * 700) for number in range(3)])  # 1,536 bytes each
    data = whole[:cut]
    members, _, broken = listed(data)
    assert broken
    assert [member["key"] for member in members] == [f"{number}.png" for number in range(-(-(cut - 511) // 1536))]
    complete = {f"{number}.png": bytes([number]) * 700 for number in range(cut // 1536)}
    kept: dict[str, bytes | ArchiveError] = {}
    with pytest.raises(ArchiveError, match=r"damaged or cut off|not a readable"):
        for index, content in read_tar(io.BytesIO(data), ["0.png", "1.png", "2.png"]):
            kept[f"{index}.png"] = content
    assert {name: content for name, content in kept.items() if isinstance(content, bytes)} == complete


def overwrite(data: bytes, place: int, text: bytes) -> bytes:
    return data[:place] + text + data[place + len(text) :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: overwrite(data, 1024, b"\xff" * 512), "after 1 members: bad header at byte 1024"),
        (lambda data: data[:2048], "after 2 members: the end marker is missing"),
        (lambda data: b"this is no tar file" * 99, "not a readable, uncompressed tar file"),
        (lambda data: b"\x1f\x8b" + data, "not a readable, uncompressed tar file"),
    ],
)
def test_damage_that_tarfile_takes_for_the_end_is_told(damage: Callable[[bytes], bytes], message: str) -> None:
    data = tar([("a.png", b"1"), ("b.png", b"2")])
    assert listed(data)[2] is None
    assert message in (listed(damage(data))[2] or "")


def test_a_sparse_member_is_not_expanded_and_has_no_offset() -> None:
    data = sparse_tar("bomb.png", b"x" * 10)
    ((member,), _, broken) = listed(data)
    assert (member["key"], member["size"], member["offset"], broken) == ("bomb.png", 8**11 - 1, None, None)
    (error,) = read(data, "bomb.png").values()
    assert "is a sparse file" in str(error)


def test_sparse_members_within_the_file_have_no_offset() -> None:
    data = bytearray(sparse_tar("a.png", b"x" * 10))
    data[483:495] = b"00000000012\0"  # of 10 bytes, which are all there
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + 8 * 32 + sum(data[156:512]))
    assert [(member["size"], member["offset"]) for member in listed(bytes(data))[0]] == [(10, None)]
    info = tarfile.TarInfo("b.png")  # of a kind that tarfile does not know
    info.size, info.pax_headers = 4, {"GNU.sparse.major": "9", "GNU.sparse.realsize": "4"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(b"data"))
    assert [(member["size"], member["offset"]) for member in listed(buffer.getvalue())[0]] == [(4, None)]


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_an_offset_is_where_the_bytes_begin(format: int) -> None:
    names = ["a.png", "x/" * 60 + "long.png", "./sub/b c.png"]
    names += [] if format == tarfile.USTAR_FORMAT else ["ü" * 120 + ".png"]
    contents = {name: png(place) for place, name in enumerate(names)} | {"empty.png": b""}
    data = tar(list(contents.items()), format)
    members = listed(data)[0]
    assert len(members) == len(contents)
    for member, content in zip(members, contents.values(), strict=True):
        assert data[member["offset"] : member["offset"] + member["size"]] == content


def test_a_member_that_is_cut_off_has_no_offset() -> None:
    data = tar([("a.png", b"1" * 700), ("b.png", b"2" * 700)])
    for cut, offsets in ((2048 + 700, [512, 2048]), (2048 + 699, [512, None])):
        assert [member["offset"] for member in listed(data[:cut])[0]] == offsets


def test_a_size_beyond_64_bits_is_damage() -> None:
    info = tarfile.TarInfo("b.png")
    info.size = 1 << 70
    data = tar([("a.png", b"1")])[:1024] + info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    members, _, broken = listed(data)
    assert [member["key"] for member in members] == ["a.png"]
    assert f"after 1 members: a member of {1 << 70} bytes" in (broken or "")


def test_the_first_of_two_equal_names_is_read() -> None:
    data = tar([("a.png", b"first"), ("a.png", b"second")])
    assert keys(data) == ["a.png", "a.png"]
    assert read(data, "a.png") == {"a.png": b"first"}


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 2600), st.integers(0, 255)), max_size=5), st.integers(0, 10_240))
def test_damage_never_escapes_as_another_error(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(tar([("a.png", b"1" * 600), ("é" * 60 + ".png", b"2"), ("a.json", b'{"night": "x"}')]))
    for place, value in changes:
        data[place] = value
    members, _, broken = listed(bytes(data[:cut]), "night")
    assert broken is None or re.match(r"damaged or cut off after \d+ members: |not a readable", broken)
    try:
        contents = read(bytes(data[:cut]), *{member["key"] for member in members})
    except ArchiveError as exc:
        assert str(exc)
    else:
        assert all(isinstance(content, bytes | ArchiveError) for content in contents.values())
