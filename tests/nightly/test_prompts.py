"""Which normal images few-shot mode takes, and where aligned samples are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image

from patchead.archive.catalog import CatalogRequest
from patchead.errors import ArchiveError, SettingsError
from patchead.nightly.prompt_nulls import NullSamples
from patchead.nightly.prompts import PromptRequest, PromptSet, list_prompts, prompt_catalog, require_usable
from patchead.nightly.units import view_number
from patchead.plan.planned import PromptCounts
from patchead.samples.stand_ins import STAND_INS
from patchead.schema import FAILED, OK, PROMPT, PROMPT_VIEW, RECEIPTS, table

GROUPS = ["night=2026-11-21/product=nut", "night=2026-11-21/product=screw"]


@pytest.fixture
def normal(tmp_path: Path) -> str:
    """Six screws and three nuts."""
    for product, count in (("screw", 6), ("nut", 3)):
        folder = tmp_path / f"product={product}"
        folder.mkdir()
        for index in range(count):
            Image.fromarray(np.full((4, 4, 3), index, np.uint8)).save(folder / f"{index}.png")
    return str(tmp_path)


def request(uri: str, **changes: object) -> PromptRequest:
    archive = CatalogRequest(uri="unused", group_by=("night", "product"), limit=1)
    given = {"manifest": None, "k": None, "seed": 0, "rotations": ()} | changes
    return PromptRequest(prompt_catalog(archive, uri, None), **given)  # type: ignore[arg-type]


def ids(prompts: PromptSet) -> list[str]:
    return [name for names in prompts.ids().values() for name in names]


def test_all_images_are_prompts_of_their_product_whatever_the_night(normal: str) -> None:
    found = list_prompts(request(normal, rotations=(180,)), GROUPS)
    assert {name: len(names) for name, names in found.ids().items()} == {"product=nut": 3, "product=screw": 6}
    nights = [f"night=2026-11-2{i}/product=screw" for i in range(2)]
    assert found.counts(nights) == dict.fromkeys(nights, PromptCounts(references=12, nulls=6))
    found.require(nights, normal)
    with pytest.raises(ArchiveError, match=r"no prompt for the group night=2026-11-21/product=bolt \(1 such groups\)"):
        found.require([*nights, "night=2026-11-21/product=bolt"], normal)


def test_k_are_drawn_by_seed_alone(normal: str) -> None:
    drawn = [ids(list_prompts(request(normal, k=2, seed=seed), GROUPS)) for seed in range(6)]
    assert all(len(names) == 4 for names in drawn)
    assert ids(list_prompts(request(normal, k=2, seed=3), GROUPS)) == drawn[3]
    assert len({tuple(names) for names in drawn}) > 1
    with pytest.raises(SettingsError, match=r"prompts\.k=4, but .* has only 3 normal images for product=nut"):
        list_prompts(request(normal, k=4), GROUPS)


def test_a_manifest_names_them(normal: str, tmp_path: Path) -> None:
    chosen = ["product=nut/1.png", "product=screw/4.png"]
    (tmp_path / "ids.txt").write_text("\n".join(chosen) + "\n\n")
    assert ids(list_prompts(request(normal, manifest=str(tmp_path / "ids.txt")), GROUPS)) == chosen
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ArchiveError, match="is empty"):
        list_prompts(request(normal, manifest=str(tmp_path / "empty.txt")), GROUPS)
    with pytest.raises(ArchiveError, match=r"cannot read prompts\.manifest"):
        list_prompts(request(normal, manifest=str(tmp_path / "gone.txt")), GROUPS)


def test_every_prompt_is_embedded_upright_and_turned_under_its_own_id(normal: str) -> None:
    found = list_prompts(request(normal, k=1, rotations=(90, 270)), GROUPS)
    wanted = found.to_embed()
    assert wanted["turn"].to_pylist() == [None, None, 90, 90, 270, 270]
    assert wanted["role"].to_pylist() == [PROMPT] * 6
    assert wanted["image_id"].to_pylist() == ids(found) * 3
    receipts = [
        {"image_id": name, "content_hash": f"hash of {name}", "embedding_uri": "u", "row": i, "status": OK}
        for i, name in enumerate(wanted["image_id"].to_pylist())
    ]
    embedded = found.embedded(table(receipts, RECEIPTS))
    nut, screw = ids(found)
    assert {name: rows["content_hash"].to_pylist() for name, rows in embedded.items()} == {
        "product=nut": [f"hash of {nut}"] * 3,
        "product=screw": [f"hash of {screw}"] * 3,
    }
    assert [embedded["product=nut"][name].to_pylist() for name in ("row", "turn")] == [[0, 2, 4], [None, 90, 270]]
    receipts[1] |= {"status": FAILED, "error": "damaged"}
    with pytest.raises(ArchiveError, match=r"1 prompts cannot be used; product=screw/.\.png: damaged"):
        require_usable(table(receipts, RECEIPTS))


def test_prompts_of_products_that_are_not_looked_at_are_left_alone(normal: str) -> None:
    found = list_prompts(request(normal, k=4), ["night=2026-11-21/product=screw"])
    assert list(found.ids()) == ["product=screw"]


def test_an_empty_folder_of_prompts_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"no image in .*\(Of the prompts: here archive\.uri is prompts\.uri"):
        list_prompts(request(str(tmp_path)), GROUPS)


def embedded_references(prompts: PromptSet, contents: dict[str, str]) -> dict[str, pa.Table]:
    """As if embedded; ``contents`` are those of prompts that are copies."""
    wanted = prompts.to_embed()
    receipts = [
        {"image_id": name, "content_hash": contents.get(name, name), "embedding_uri": "u", "row": i, "status": OK}
        for i, name in enumerate(wanted["image_id"].to_pylist())
    ]
    return prompts.embedded(table(receipts, RECEIPTS))


def test_prompts_are_scored_upright_each_content_once(normal: str) -> None:
    found = list_prompts(request(normal, rotations=(180,)), GROUPS)
    screws = found.ids()["product=screw"]
    nulls = NullSamples.of(found.upright(), embedded_references(found, {screws[2]: screws[1]}))
    assert nulls.views_of == {"product=nut": 0, "product=screw": 0}
    assert nulls.to_embed["image_id"].to_pylist() == [*found.ids()["product=nut"], *screws[:2], *screws[3:]]
    assert set(nulls.to_embed["role"].to_pylist()) == {PROMPT}
    assert nulls.to_embed["turn"].null_count == nulls.to_embed.num_rows


@pytest.mark.parametrize("different", [1, 2])
def test_views_stand_in_for_prompts_that_are_too_few(normal: str, different: int) -> None:
    found = list_prompts(request(normal), GROUPS)
    nuts = found.ids()["product=nut"]
    references = embedded_references(found, dict.fromkeys(nuts[different:], nuts[0]))
    nulls = NullSamples.of(found.upright(), references)
    assert nulls.views_of == {"product=nut": different, "product=screw": 0}
    rows = nulls.to_embed.filter(pc.equal(nulls.to_embed["group_id"], "product=nut"))
    roles = [f"{PROMPT_VIEW} {number}" for number in range(STAND_INS)]
    assert sorted(zip(rows["image_id"].to_pylist(), rows["role"].to_pylist(), strict=True)) == sorted(
        (name, role) for name in nuts[:different] for role in roles
    )
    assert [view_number(role) for role in roles] == [*range(STAND_INS)]
    assert view_number(PROMPT) is None is view_number(None)
