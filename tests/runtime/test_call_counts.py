from __future__ import annotations

from patchead.runtime.call_counts import CallCounts


def test_repeated_starts_and_reads_are_counted_apart_from_first_ones() -> None:
    counts = CallCounts()
    for task in ("tile 0 1", "tile 0 2", "tile 0 1"):
        counts.began(task)
    counts.finished("0", 3.0)
    counts.finished("1", 0.5)
    counts.finished("1", 0.5)
    for node, block in (("n1", "a"), ("n2", "a"), ("n1", "b"), ("n1", "b")):
        counts.read(node, block, 10)
    summary = counts.summary()
    assert all(0 <= share < 0.9 for share in summary.pop("actor_idle"))
    assert summary == {
        "tasks_done": 2,
        "tasks_redone": 1,
        "blocks_read": 4,
        "bytes_read": 40,
        "reads_of_a_block_per_node": 2,
        "actor_seconds": [3.0, 1.0],
        "slowest_over_mean": 1.5,
    }


def test_a_run_with_nothing_to_score_has_a_summary_too() -> None:
    summary = CallCounts().summary()
    assert (summary["tasks_done"], summary["blocks_read"], summary["slowest_over_mean"]) == (0, 0, None)
