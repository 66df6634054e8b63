"""Views of `patchead query` that answer what is asked in the morning, on top of those of the tables."""

from __future__ import annotations

LATEST = """
CREATE VIEW latest AS SELECT scores.* FROM scores LEFT JOIN (SELECT run_id, finished_at FROM runs) USING (run_id)
QUALIFY row_number() OVER (PARTITION BY night, image_id ORDER BY finished_at DESC NULLS LAST, run_id DESC) = 1
"""
"""Each image of a night once: where runs with other groups have scored it too, the row of the newest."""

WORST = """
CREATE VIEW worst AS SELECT night, product, image_id, score, z, p_value, is_anomalous, rank, heatmap_uri, uri
FROM latest WHERE status = 'ok' ORDER BY night DESC, is_anomalous DESC, z DESC NULLS LAST, score DESC, image_id
"""
"""Images with a score, the newest night first, and in it the flagged and the highest."""

FAILED = """
CREATE VIEW failed AS SELECT night, product, image_id, status, error, uri
FROM latest WHERE status <> 'ok' ORDER BY night DESC NULLS LAST, product, image_id
"""
"""Images without a score, and why."""

DRIFT = """
CREATE VIEW drift AS SELECT night, product, group_id, scored, flagged, flagged / nullif(scored, 0) AS flagged_share,
median, centre, scale, median - lag(median) OVER before AS median_change,
(median - lag(median) OVER before) / nullif(lag(scale) OVER before, 0) AS change_in_scales,
accepted, drift_p, drift_shift, drift_scale, encoder_id,
encoder_id IS DISTINCT FROM lag(encoder_id) OVER before AND lag(encoder_id) OVER before IS NOT NULL AS other_encoder
FROM verdicts WINDOW before AS (
    PARTITION BY product, regexp_replace(group_id, '(^|/)night=[^/]*', '') ORDER BY night, run_id)
ORDER BY product, night
"""
"""Every group's scores from night to night: how far the median went, in the scales of the night before."""

VIEWS = (LATEST, WORST, FAILED, DRIFT)
"""The statements, in an order in which each finds the views that it reads."""
