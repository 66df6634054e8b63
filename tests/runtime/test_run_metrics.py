"""The metrics: one list, three labels, nothing else."""

from __future__ import annotations

import pytest

from patchead.retries import RETRIES
from patchead.runtime import metrics


def test_counters_add_up_and_gauges_are_replaced_under_their_labels() -> None:
    labels = {"night": "2001-01-01", "product": "screw"}
    metrics.count("patchead_images_listed", 3, **labels)
    metrics.count("patchead_images_listed", 4, **labels)
    metrics.count("patchead_images_listed", 1, night="2001-01-01", product=None)
    metrics.gauge("patchead_groups_left", 5, night="2001-01-01", stage="score")
    metrics.gauge("patchead_groups_left", 2, night="2001-01-01", stage="score")
    listed = metrics.values("patchead_images_listed")
    assert listed["2001-01-01", "screw", ""] == 7
    assert listed["2001-01-01", "", ""] == 1
    assert metrics.values("patchead_groups_left")["2001-01-01", "", "score"] == 2


def test_what_is_in_no_list_is_refused() -> None:
    with pytest.raises(KeyError):
        metrics.count("patchead_images")
    with pytest.raises(ValueError, match="is a gauge"):
        metrics.count("patchead_groups_left")
    with pytest.raises(ValueError, match="image_id"):
        metrics.count("patchead_images_failed", image_id="a.png")


def test_names_are_as_prometheus_has_them() -> None:
    assert metrics.exported_name("patchead_images_listed") == "ray_patchead_images_listed_total"
    assert metrics.exported_name("patchead_groups_left") == "ray_patchead_groups_left"


def test_ray_can_export_them(local_ray: None) -> None:
    """It takes ASCII alone, in meanings and in labels."""
    for name, described in metrics.METRICS.items():
        tell = metrics.count if described.type == "counter" else metrics.gauge
        tell(name, 1, night="2001-01-02", product="Schraube ü", stage="test")
    assert metrics.values("patchead_groups_left")["2001-01-02", "Schraube ü", "test"] == 1


def test_a_call_of_a_worker_counts_though_it_fails_and_its_retries_once() -> None:
    def of(name: str) -> float:
        return metrics.values(name).get(("", "", "test"), 0)

    metrics.tell_retries("")
    RETRIES.add(2)
    with pytest.raises(ZeroDivisionError), metrics.work("test"):
        1 / 0  # noqa: B018
    with metrics.work("test"):
        pass
    assert (of("patchead_work_begun"), of("patchead_work_done"), of("patchead_storage_retries")) == (2, 2, 2)
    assert of("patchead_work_seconds") > 0
