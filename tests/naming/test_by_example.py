"""Names by example: types and p-values of the plain loops, `unknown` where nothing is near, no other encoder."""

from __future__ import annotations

import numpy as np
import pytest

from patchead.errors import SettingsError
from patchead.naming import by_example, joins
from patchead.naming.by_example import NEAREST, REACH, Examples, name_regions, thinned
from patchead.naming.families import cosine_distances
from patchead.naming.joins import drawn_to_neighbours, less_common
from patchead.naming.named import UNKNOWN, Named
from tests.naming.test_families import around
from tests.reference import naming as oracle

TYPES = ("crack", "hole", "scratch")


def name(asked: np.ndarray, given: Examples, *, level: float = 0.05, distance: float = 0.5) -> list[Named]:
    return name_regions(asked, given, encoder_id="vit", level=level, distance=distance)


def examples(*counts: int, noise: float = 0.2) -> Examples:
    parts = [around(number, each=count, noise=noise, seed=number) for number, count in enumerate(counts)]
    types = [TYPES[number] for number, count in enumerate(counts) for _ in range(count)]
    return Examples(np.concatenate(parts), types, "vit")


@pytest.mark.parametrize("counts", [(4, 3, 5), (1, 4, 2), (1, 1), (8, 9, 5)])
def test_names_and_p_values_are_those_of_the_plain_loops(counts: tuple[int, ...]) -> None:
    given, asked = examples(*counts, noise=0.3), around(0, 1, 2, 5, each=3, noise=0.3, seed=9)
    of_types = {
        name: [v for v, t in zip(given.vectors.astype(float), given.types, strict=True) if t == name]
        for name in given.names
    }
    expected = oracle.named(
        asked.astype(float),
        of_types,
        distance=0.5,
        nearest=NEAREST,
        neighbours=joins.NEIGHBOURS,
        reach=REACH,
    )
    found = name(asked, given, level=0.1)
    assert {named.is_known for named in found} == {True, False}
    for (p, order), named in zip(expected, found, strict=True):
        assert named.p == pytest.approx(p, abs=1e-9)
        assert named.defect_type == (order[0] if p > 0.1 else UNKNOWN)
        assert named.runner_up == (order[1] if p > 0.1 else order[0])
        assert 0 < named.confidence <= 1


def test_regions_of_named_types_are_named_and_another_is_unknown() -> None:
    found = name(around(0, 1, 2, 7, each=4, seed=5), examples(5, 5, 5))
    assert [named.defect_type for named in found] == [t for t in (*TYPES, UNKNOWN) for _ in range(4)]


def test_with_one_example_of_each_type_the_distance_decides() -> None:
    found = name(around(1, 7, each=2, noise=0.05), examples(1, 1, noise=0.05))
    assert [(named.defect_type, named.p) for named in found] == [("hole", 1.0)] * 2 + [(UNKNOWN, 0.0)] * 2
    (alone,) = name(around(0, each=1), examples(1))
    assert (alone.defect_type, alone.confidence, alone.runner_up) == ("crack", 1.0, None)
    assert name(np.empty((0, 12), np.float32), examples(1)) == []


def test_a_region_goes_with_those_it_is_like_though_an_example_is_near() -> None:
    new = around(7, each=6, noise=0.1)
    new[0] = new[0] + np.eye(12)[1]
    new[0] /= np.linalg.norm(new[0])
    given = examples(5, 5, 5)
    (alone,) = name(new[:1], given)
    assert alone.defect_type == "hole"
    assert {named.defect_type for named in name(new, given)} == {UNKNOWN}


def test_what_all_regions_share_says_nothing_of_their_kind() -> None:
    shared = np.eye(12)[11]
    given, asked = examples(5, 5, 5), around(0, 1, 2, 7, each=4, seed=5)
    lifted = [values + shared.astype(np.float32) for values in (given.vectors, asked)]
    lifted = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in lifted]
    found = name(lifted[1], Examples(lifted[0], given.types, "vit"), distance=0.2)
    assert [named.defect_type for named in found] == [t for t in (*TYPES, UNKNOWN) for _ in range(4)]


@pytest.mark.parametrize(("regions", "block"), [(17, 1024), (17, 5), (3, 2), (2, 1)])
def test_vectors_are_drawn_to_their_neighbours_as_in_the_plain_loops(
    regions: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joins, "_BLOCK", block)
    vectors = around(0, 1, each=9, noise=0.4)[:regions].astype(float)
    vectors[-1] = vectors[0]  # the same look twice
    vectors = np.array([oracle.unit(vector) for vector in vectors])
    found = drawn_to_neighbours(vectors)
    assert np.allclose(found, oracle.drawn(list(vectors), joins.NEIGHBOURS), atol=1e-12)
    others = vectors[:-1]
    turn = np.random.default_rng(0).permutation(len(others))
    assert np.array_equal(drawn_to_neighbours(others[turn]), drawn_to_neighbours(others)[turn])
    assert np.array_equal(drawn_to_neighbours(vectors[:1]), vectors[:1])


def test_a_region_is_drawn_to_its_own_kind_and_to_no_other() -> None:
    given = around(0, 1, each=9, noise=0.3)
    before, after = (cosine_distances(of, of) for of in (given, drawn_to_neighbours(given)))
    assert after[:9, :9].mean() < 0.5 * before[:9, :9].mean()
    assert after[:9, 9:].mean() > 0.9 * before[:9, 9:].mean()


def test_the_more_examples_a_type_has_the_nearer_are_its_regions() -> None:
    far = by_example.reaches(np.array([1, 8, 10, 500]))
    assert far == pytest.approx([REACH, REACH / 2, REACH / 10 ** (1 / 3), REACH / 10 ** (1 / 3)])
    one, several = (name(around(0, 1, each=1, noise=0.1), examples(*counts)) for counts in ((1, 1), (10, 10)))
    assert [named.is_known for named in one + several] == [True] * 4


def test_in_a_night_of_one_family_nothing_is_taken_away() -> None:
    vectors = around(0, each=6, noise=0.1)
    assert np.allclose(less_common(vectors, 0.5), vectors, atol=1e-6)
    assert {named.defect_type for named in name(vectors, examples(6, noise=0.1))} == {"crack"}


def test_the_order_of_regions_and_examples_changes_nothing() -> None:
    given, asked = examples(4, 5, 6, noise=0.35), around(0, 1, 2, each=4, noise=0.4, seed=4)
    order, turn = np.random.default_rng(0).permutation(15), np.random.default_rng(1).permutation(12)
    first = name(asked, given)
    second = name(asked[turn], Examples(given.vectors[order], [given.types[i] for i in order], "vit"))
    assert second == [first[place] for place in turn]


def test_too_many_regions_take_turns_and_too_many_examples_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    given, asked = examples(30, 2, 9, noise=0.1), around(0, 1, 2, 7, each=6, noise=0.1, seed=5)
    kept = thinned(given, 12)
    assert [kept.types.count(name) for name in TYPES] == [5, 2, 5]
    assert len({vector.tobytes() for vector in kept.vectors}) == 12
    assert {vector.tobytes() for vector in kept.vectors} <= {vector.tobytes() for vector in given.vectors}
    monkeypatch.setattr(by_example, "MOST_EXAMPLES", 12)
    monkeypatch.setattr(joins, "MOST", 20)
    assert [named.defect_type for named in name(asked, given)] == [t for t in (*TYPES, UNKNOWN) for _ in range(6)]


def test_examples_of_another_encoder_are_refused_naming_both() -> None:
    with pytest.raises(SettingsError, match=r"encoder vit, the regions of resnet"):
        name_regions(around(0, each=1), examples(2), encoder_id="resnet", level=0.05, distance=0.5)
