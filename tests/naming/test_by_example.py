"""Names by example: p-values as the plain loops have them, `unknown` where nothing is near, no other encoder."""

from __future__ import annotations

import numpy as np
import pytest

from patchead.errors import SettingsError
from patchead.naming.by_example import NEAREST, Examples, name_regions
from patchead.naming.named import UNKNOWN
from tests.naming.test_families import around
from tests.reference import naming as oracle

TYPES = ("crack", "hole", "scratch")


def examples(*counts: int, noise: float = 0.2) -> Examples:
    parts = [around(number, each=count, noise=noise, seed=number) for number, count in enumerate(counts)]
    types = [TYPES[number] for number, count in enumerate(counts) for _ in range(count)]
    return Examples(np.concatenate(parts), types, "vit")


@pytest.mark.parametrize("counts", [(4, 3, 5), (1, 4, 2), (20, 25, 3)])
def test_p_values_are_those_of_the_plain_loops(counts: tuple[int, ...]) -> None:
    given, asked = examples(*counts), around(0, 1, 2, 5, each=3, noise=0.3, seed=9)
    of_types = {
        name: [v for v, t in zip(given.vectors.astype(float), given.types, strict=True) if t == name]
        for name in given.names
    }
    found = name_regions(asked, given, encoder_id="vit", level=0.05, distance=0.5)
    for vector, named in zip(asked.astype(float), found, strict=True):
        p = {name: oracle.p_of_type(vector, of_types, name, 0.05, NEAREST) for name in of_types}
        near = {name: oracle.distance_to_type(vector, members, NEAREST) for name, members in of_types.items()}
        order = sorted(near, key=lambda name: near[name])
        offered = [name for name in order if p[name] > 0.05]
        best = offered[0] if offered else order[0]
        assert named.defect_type == (best if offered else UNKNOWN)
        assert named.p == pytest.approx(p[best], abs=1e-6)
        assert named.runner_up == (next(name for name in order if name != best) if offered else best)
        assert 0 < named.confidence <= 1


def test_regions_of_named_types_are_named_and_another_is_unknown() -> None:
    found = name_regions(
        around(0, 1, 2, 7, each=4, seed=5), examples(5, 5, 5), encoder_id="vit", level=0.05, distance=0.5
    )
    assert [named.defect_type for named in found] == [t for t in (*TYPES, UNKNOWN) for _ in range(4)]


def test_with_one_example_of_each_type_the_distance_decides() -> None:
    found = name_regions(
        around(1, 7, each=2, noise=0.05), examples(1, 1, noise=0.05), encoder_id="vit", level=0.05, distance=0.5
    )
    assert [named.defect_type for named in found] == ["hole", "hole", UNKNOWN, UNKNOWN]
    (alone,) = name_regions(around(0, each=1), examples(1), encoder_id="vit", level=0.05, distance=0.5)
    assert (alone.defect_type, alone.confidence, alone.runner_up) == ("crack", 1.0, None)


def test_the_order_of_regions_and_examples_changes_nothing() -> None:
    given, asked = examples(4, 5, 6, noise=0.35), around(0, 1, 2, each=4, noise=0.4, seed=4)
    order, turn = np.random.default_rng(0).permutation(15), np.random.default_rng(1).permutation(12)
    again = Examples(given.vectors[order], [given.types[i] for i in order], "vit")
    first = name_regions(asked, given, encoder_id="vit", level=0.05, distance=0.5)
    second = name_regions(asked[turn], again, encoder_id="vit", level=0.05, distance=0.5)
    for place, named in zip(turn, second, strict=True):
        assert named.defect_type == first[place].defect_type
        assert named.p == pytest.approx(first[place].p, abs=1e-9)
        assert named.confidence == pytest.approx(first[place].confidence, abs=1e-9)


def test_examples_of_another_encoder_are_refused_naming_both() -> None:
    with pytest.raises(SettingsError, match=r"encoder vit, the regions of resnet"):
        name_regions(around(0, each=1), examples(2), encoder_id="resnet", level=0.05, distance=0.5)
