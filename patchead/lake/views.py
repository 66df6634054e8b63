"""Views that answer what is asked in the morning, on top of those of the tables, in SQL that every engine reads."""

from __future__ import annotations

from patchead.result_tables import MAIN
from patchead.schema import SCORES

ADDRESSES = ("uri", "heatmap_uri")
"""Columns of the view of scores that the table does not have."""

_RUNS_ENDED = (
    "SELECT run_id, max(finished_at) AS finished_at, max(archive_uri) AS archive_uri FROM runs GROUP BY run_id"
)


def whole_addresses(rows: str, lake_uri: str, columns: str) -> str:
    """Write the view of scores: ``rows`` with the whole addresses of images and heatmaps.

    Args:
        rows: what stands for the table.
        lake_uri: as the reader of the addresses takes it.
        columns: of the table, separated by commas, each as ``s.name``.
    """
    lake = lake_uri.rstrip("/").replace("'", "''")
    return (
        f"SELECT {columns}, concat(e.archive_uri, '/', s.path) AS uri, "
        f"CASE WHEN s.heatmap_path IS NOT NULL THEN concat('{lake}/', s.heatmap_path) END AS heatmap_uri\n"
        f"FROM {rows} AS s LEFT JOIN ({_RUNS_ENDED}) AS e ON s.run_id = e.run_id"
    )


def views(lane: str = MAIN) -> dict[str, str]:
    """Write the SELECT of each view by name, in an order in which each finds those that it reads.

    Args:
        lane: that they show.
    """
    words = {"{lane}": lane.replace("'", "''"), "{columns}": ", ".join(map(quoted, (*SCORES.names, *ADDRESSES)))}
    found = dict(_VIEWS)
    for word, instead in words.items():
        found = {name: text.replace(word, instead) for name, text in found.items()}
    return {name: text.strip() for name, text in found.items()}


def quoted(column: str) -> str:
    """Write a column's name; the one that is also a function's in quotes."""
    return f'"{column}"' if column == "rank" else column


_VIEWS = {
    # Each image of a night once: where runs with other groups have scored it too, the row of the newest.
    "latest": """
SELECT {columns} FROM (
  SELECT s.*, row_number() OVER (
    PARTITION BY s.night, s.image_id ORDER BY e.finished_at DESC NULLS LAST, s.run_id DESC) AS newest
  FROM scores AS s LEFT JOIN (SELECT run_id, max(finished_at) AS finished_at FROM runs GROUP BY run_id) AS e
  ON s.run_id = e.run_id WHERE s.lane = '{lane}') AS numbered
WHERE newest = 1
""",
    # Images with a score, the newest night first, and in it the flagged and the highest.
    "worst": """
SELECT night, product, image_id, score, z, p_value, is_anomalous, "rank", heatmap_uri, uri
FROM latest WHERE status = 'ok' ORDER BY night DESC, is_anomalous DESC, z DESC NULLS LAST, score DESC, image_id
""",
    # Images without a score, and why.
    "failed": """
SELECT night, product, image_id, status, error, uri
FROM latest WHERE status <> 'ok' ORDER BY night DESC NULLS LAST, product, image_id
""",
    # Every group's scores from night to night: how far the median went, in the scales of the night before.
    "drift": """
SELECT night, product, group_id, scored, flagged, 1.0 * flagged / nullif(scored, 0) AS flagged_share,
  median, centre, scale, median - median_before AS median_change,
  (median - median_before) / nullif(scale_before, 0) AS change_in_scales,
  accepted, drift_p, drift_shift, drift_scale, encoder_id,
  encoder_before IS NOT NULL AND encoder_id <> encoder_before AS other_encoder
FROM (
  SELECT v.*, lag(median) OVER (PARTITION BY product, keys ORDER BY night, run_id) AS median_before,
    lag(scale) OVER (PARTITION BY product, keys ORDER BY night, run_id) AS scale_before,
    lag(encoder_id) OVER (PARTITION BY product, keys ORDER BY night, run_id) AS encoder_before
  FROM (SELECT *, regexp_replace(group_id, '(^|/)night=[^/]*', '') AS keys FROM verdicts
        WHERE lane = '{lane}') AS v) AS each_after_the_one_before
ORDER BY product, night
""",
}
