"""Views that answer what is asked in the morning, on top of those of the tables, in SQL that every engine reads."""

from __future__ import annotations

from patchead.result_tables import MAIN
from patchead.schema import SCORES

ADDRESSES = ("uri", "heatmap_uri")
"""Columns of the view of scores that the table does not have."""


def whole_addresses(rows: str, lake_uri: str, columns: str) -> str:
    """Write the view of scores: ``rows`` with the whole addresses of images and heatmaps.

    Args:
        rows: what stands for the table.
        lake_uri: as the reader of the addresses takes it.
        columns: of the table, separated by commas, each as ``s.name``.
    """
    lake = lake_uri.rstrip("/").replace("'", "''")
    return (
        f"SELECT {columns}, e.archive_uri || '/' || s.path AS uri, '{lake}/' || s.heatmap_path AS heatmap_uri\n"
        f"FROM {rows} AS s LEFT JOIN (SELECT run_id, max(archive_uri) AS archive_uri FROM runs GROUP BY run_id) AS e\n"
        "ON s.run_id = e.run_id"
    )


KEYS = "replace(group_id, 'night=' || CAST(night AS {text}), '')"
"""A group's id without its night."""


def views(lane: str = MAIN, text_type: str = "VARCHAR", keys: str = KEYS) -> dict[str, str]:
    """Write the SELECT of each view by name, in an order in which each finds those that it reads.

    Args:
        lane: that they show.
        text_type: the engine's name of it.
        keys: the engine's way of `KEYS`.
    """
    words = {
        "{lane}": lane.replace("'", "''"),
        "{columns}": ", ".join((*SCORES.names, *ADDRESSES)),
        "{s.columns}": ", ".join(f"s.{name} AS {name}" for name in (*SCORES.names, *ADDRESSES)),
        "{keys}": keys,
        "{text}": text_type,
    }
    found = dict(_VIEWS)
    for word, instead in words.items():
        found = {name: text.replace(word, instead) for name, text in found.items()}
    return {name: text.strip() for name, text in found.items()}


_VIEWS = {
    # Each image of a night once. A night of one run, as nearly all are, has it once already; of a night in which runs
    # with other groups have scored an image too, it is the row of the newest.
    "latest": """
SELECT {columns} FROM scores WHERE lane = '{lane}' AND night IN (
  SELECT night FROM scores WHERE lane = '{lane}' GROUP BY night HAVING min(run_id) = max(run_id))
UNION ALL
SELECT {columns} FROM (
  SELECT {s.columns}, row_number() OVER (
    PARTITION BY s.night, s.image_id ORDER BY e.finished_at DESC, s.run_id DESC) AS newest
  FROM scores AS s LEFT JOIN (SELECT run_id, max(finished_at) AS finished_at FROM runs GROUP BY run_id) AS e
  ON s.run_id = e.run_id WHERE s.lane = '{lane}' AND s.night IN (
    SELECT night FROM scores WHERE lane = '{lane}' GROUP BY night HAVING min(run_id) <> max(run_id))) AS numbered
WHERE newest = 1
UNION ALL
SELECT {columns} FROM scores WHERE lane = '{lane}' AND night IS NULL
""",
    # Images with a score, the newest night first, and in it the flagged and the highest.
    "worst": """
SELECT night, product, image_id, score, z, p_value, is_anomalous, rank, heatmap_uri, uri
FROM latest WHERE status = 'ok' ORDER BY night DESC, is_anomalous DESC, z DESC, score DESC, image_id
""",
    # Images without a score, and why.
    "failed": """
SELECT night, product, image_id, status, error, uri
FROM latest WHERE status <> 'ok' ORDER BY night DESC, product, image_id
""",
    # Every group's scores from night to night: how far the median went, in the scales of the night before.
    "drift": """
SELECT night, product, group_id, scored, flagged, 1.0 * flagged / nullif(scored, 0) AS flagged_share,
  median, centre, scale, median - median_before AS median_change,
  (median - median_before) / nullif(scale_before, 0) AS change_in_scales,
  accepted, drift_p, drift_shift, drift_scale, encoder_id,
  encoder_before IS NOT NULL AND encoder_id <> encoder_before AS other_encoder
FROM (
  SELECT night, product, group_id, scored, flagged, median, centre, scale, accepted, drift_p, drift_shift, drift_scale,
    encoder_id, lag(median) OVER (PARTITION BY product, group_keys ORDER BY night, run_id) AS median_before,
    lag(scale) OVER (PARTITION BY product, group_keys ORDER BY night, run_id) AS scale_before,
    lag(encoder_id) OVER (PARTITION BY product, group_keys ORDER BY night, run_id) AS encoder_before
  FROM (SELECT run_id, night, product, group_id, scored, flagged, median, centre, scale, accepted, drift_p, drift_shift,
          drift_scale, encoder_id, {keys} AS group_keys
        FROM verdicts WHERE lane = '{lane}') AS of_the_lane) AS with_the_one_before
ORDER BY product, night
""",
    # Every family once, that with most images first: when it was there, and the region that shows it best.
    "families": """
SELECT f.family AS family, f.product AS product, f.first_night AS first_night, f.last_night AS last_night,
  f.nights AS nights, f.images AS images, f.regions AS regions, m.defect_type AS defect_type, m.image_id AS image_id,
  m.region AS region, m.x AS x, m.y AS y, m.width AS width, m.height AS height, s.heatmap_uri AS heatmap_uri,
  s.uri AS uri, s.encoder_id AS encoder_id
FROM (
  SELECT family, product, min(night) AS first_night, max(night) AS last_night, count(DISTINCT night) AS nights,
    count(DISTINCT image_id) AS images, count(*) AS regions
  FROM regions WHERE lane = '{lane}' AND family IS NOT NULL GROUP BY family, product) AS f
LEFT JOIN (
  SELECT run_id, image_id, region, family, defect_type, x, y, width, height, row_number() OVER (
    PARTITION BY family ORDER BY night DESC, run_id DESC, image_id, region) AS newest
  FROM regions WHERE lane = '{lane}' AND family_medoid) AS m
ON f.family = m.family AND m.newest = 1
LEFT JOIN scores AS s ON s.run_id = m.run_id AND s.image_id = m.image_id
ORDER BY images DESC, regions DESC, family
""",
}
