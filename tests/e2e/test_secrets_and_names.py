"""What a night records and prints holds no key, and names of an archive can do nothing in the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.command import patchead
from tests.helpers.e2e_tools import SMALL_OPTIONS, good_images, rows, write_group

NIGHT = "2026-11-21"
HOSTILE = ["\x1b]0;owned\x07[red]a.png", "\x9b2Jb.png", "[/]c.png", "d\u202egnp.png", ":smile:[bold]e.png"]


def test_a_night_of_hostile_names_prints_none_of_them_raw(tmp_path: Path) -> None:
    images = dict(zip(HOSTILE, good_images(len(HOSTILE)).values(), strict=True))
    images["\x1b[2J[red]bad.png"] = b"no image"
    write_group(tmp_path / "archive", NIGHT, "[green]\x1b[2Jscrew", {}).joinpath("[").mkdir()
    write_group(tmp_path / "archive", NIGHT, "[green]\x1b[2Jscrew", images)
    places = ["--archive", str(tmp_path / "archive"), "--lake", str(tmp_path / "lake")]
    plan = patchead("plan", *places, *SMALL_OPTIONS)
    night = patchead("score", "--local", *places, *SMALL_OPTIONS, "--set=run.max_failed_fraction=0.5")
    assert (plan.code, night.code) == (0, 3), night.err
    query = patchead("query", "SELECT split_part(image_id, 'screw/', 2) AS name, product FROM scores", *places[2:])
    assert query.code == 0, query.err
    printed = "".join(ended.out + ended.err for ended in (plan, night, query))
    assert not {c for c in printed if not (c.isprintable() or c == "\n")}
    for part in ("[red]a.png", "[/]c.png", ":smile:[bold]e.png", r"\x1b[2J[red]bad.png"):
        assert part in query.out
    assert r"%1B" in plan.out or r"[green]" in plan.out
    assert {row["image_id"].split("screw/")[1] for row in rows(tmp_path / "lake")} == set(images)


@pytest.mark.parametrize(
    "address",
    [
        "simplecache::s3://KEYID:Zx9Secret@bucket/a",
        "zip://a::https://user:Zx9Secret@127.0.0.1/a.zip",
        "https://127.0.0.1/a?sig=Zx9Secret",
        "https://127.0.0.1/a?hdnea=Zx9Secret",
        "user:Zx9Secret@127.0.0.1:1",
        "https%3A%2F%2Fuser%3AZx9Secret@127.0.0.1",
    ],
)
@pytest.mark.parametrize(
    "key", ["archive.uri", "lake.uri", "prompts.uri", "prompts.manifest", "encoder.weights", "storage.endpoint_url",
            "storage.region", "archive.template", "archive.assume.station", "encoder.name"],
)  # fmt: skip
def test_a_setting_with_a_key_in_it_ends_the_command_before_it_writes(tmp_path: Path, address: str, key: str) -> None:
    given = {"archive.uri": str(tmp_path / "archive"), "lake.uri": str(tmp_path / "lake"), key: address}
    options = [f"--set={name}={value}" for name, value in given.items()]
    ended = patchead("score", "--local", *options)
    assert ended.code == 2
    assert "Zx9" not in ended.out + ended.err
    assert key in ended.err
    assert not list(tmp_path.rglob("*"))


def test_a_key_in_the_environment_s_endpoint_is_neither_printed_nor_recorded(
    tmp_path: Path, pauses: list[float]
) -> None:
    places = ["--archive", "s3://bucket/archive", "--lake", str(tmp_path / "lake")]
    keys = {"AWS_ACCESS_KEY_ID": "Zx9KeyOfTests", "AWS_SECRET_ACCESS_KEY": "Zx9SecretOfTests"}
    endpoint = {"AWS_ENDPOINT_URL": "http://user:Zx9Word@127.0.0.1:9"}
    ended = patchead("score", "--local", *places, *SMALL_OPTIONS, env=keys | endpoint)
    assert ended.code == 1
    assert "Zx9" not in ended.out + ended.err
    (record,) = (tmp_path / "lake" / "runs").glob("*/run.json")
    assert '"failed"' in record.read_text()
    assert "Zx9" not in record.read_text()
