"""A night with the default layers and size: what the words mean is what is computed, recorded and compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from patchead.encoders import EncoderSpec, build
from patchead.errors import SettingsError
from patchead.local import embed_images, score_samples
from patchead.nightly.run_record import RunRecord
from patchead.scoring.aggregate import Aggregation
from tests.helpers.e2e_tools import by_id, good_images, png, rows, spoiled, write_group

DEFAULTS = {"encoder.name": "timm/test_vit", "encoder.layers": "auto", "encoder.image_size": "auto"}
NAMED = {"run.run_id": "one", "encoder.dtype": "fp32", "scoring.precision": "fp32"}


def test_the_default_is_what_the_record_says_and_a_word_and_its_numbers_are_one_run(
    tmp_path: Path, score_night: Callable[..., RunRecord]
) -> None:
    images = good_images(5) | {"spoiled.png": png(spoiled(9))}
    folder = write_group(tmp_path / "archive", "2026-11-21", "screw", images)

    def night(**settings: Any) -> RunRecord:
        return score_night(tmp_path / "archive", tmp_path / "lake", **(DEFAULTS | NAMED | settings))

    record = night()
    encoder = build(EncoderSpec("timm/test_vit", "random", image_size=448, layers=(3, 5, 6)))  # of 6 blocks
    assert record.encoder_id == encoder.encoder_id
    paths = sorted(folder.iterdir())
    expected = score_samples(embed_images(paths, encoder), aggregation=Aggregation()).image_scores
    found = by_id(tmp_path / "lake")
    assert [row["score"] for _, row in sorted(found.items())] == pytest.approx(expected.tolist(), abs=1e-6)
    (run,) = rows(tmp_path / "lake", "runs")
    recorded = json.loads(run["config_json"])["encoder"]
    assert (recorded["layers"], recorded["image_size"]) == ([3, 5, 6], 448)

    assert night(**{"encoder.layers": [3, 5, 6], "encoder.image_size": 448}).state == "already published"
    assert night(preset="none").state == "already published"
    with pytest.raises(SettingsError, match=r"'one' is already published with other settings \(encoder\.layers\)"):
        night(**{"encoder.layers": "last"})
    with pytest.raises(SettingsError, match=r"already published with other settings \(encoder\.layers\)"):
        night(preset="patchead", **{"encoder.layers": []})
