"""Where the verdict of a batch night fails, and what helps: two kinds of good parts, few images, whole pictures."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import cv2
import numpy as np
from sklearn.metrics import roc_auc_score

from patchead.archive.decode import fit
from patchead.scoring.aggregate import Aggregation, image_scores
from patchead.scoring.verdict import VerdictSettings, judge
from patchead.settings.resolve import settled_precision
from studies import cells
from studies.features import DINO, embed_pixels, shared
from studies.findings import Case, Finding, Say, Sheet, arithmetics, find, mean_and_worst
from studies.lots import GOOD, LOTS, SIZE, arithmetic, cells_of_lot, embedded, lot_of
from studies.nights import best_f1, f1
from studies.strips import Sorted, strip, strip_to

STUDY = "limits"
RULE = Aggregation("nearest", 0.3, 0.01)
#: Good poly cells of a mixed night, and the good mono cells among them.
MANY, RARE = 90, (10, 38)
FEW = (10, 20, 30, 40)
FEW_RATE = 0.1
WHOLE_GOOD = 80
#: How many whole pictures are spoilt among them: 2.4, 9 and 20 %.
WHOLE = (2, 8, 20)
WHOLE_NIGHTS = 2
SPOILT = {"darkened to 60 %": "dark", "out of focus (sigma 1 % of the side)": "blurred", "turned by 90°": "turned"}
BY_ACCEPTED = VerdictSettings(verdict="reference")
AUTO, GROUP_BY, ACCEPTED, TOP = "auto", "group_by", "accepted", "top"


def run(say: Say) -> list[Finding]:
    """The share flagged or F1 of each case, a value per lot."""
    precision = settled_precision("auto", "cpu")
    values: dict[tuple[tuple[tuple[str, str | int | float], ...], str], list[float]] = {}
    for part, nights in ((mixed, LOTS["poly"]), (few, LOTS["poly"]), (whole, WHOLE_NIGHTS)):
        for number in range(nights):
            for case, metric, value in part(number, precision):
                values.setdefault((tuple(case.items()), metric), []).append(value)
            say(f"limits: {part.__name__}, lot {number}")
    return [
        Finding(STUDY, {**dict(case), "arithmetic": arithmetic(precision)}, metric, tuple(found))
        for (case, metric), found in values.items()
    ]


Measured = Iterator[tuple[Case, str, float]]


def mixed(number: int, precision: str) -> Measured:
    """Two kinds of good cells in one group, none defective: the share flagged of each kind, by each remedy."""
    before = (number - 1) % LOTS["poly"]
    for rare in RARE:
        scores = _mixed_scores(number, rare, precision)
        flagged = {
            AUTO: judge(scores, VerdictSettings()).flagged,
            GROUP_BY: np.concatenate(
                [judge(part, VerdictSettings()).flagged for part in _alone_scores(number, rare, precision)]
            ),
            ACCEPTED: judge(scores, BY_ACCEPTED, reference=_mixed_scores(before, rare, precision)).flagged,
        }
        for verdict, found in flagged.items():
            case: Case = {"part": "mixed", "rare": rare, "verdict": verdict}
            yield case, "many flagged", float(found[:MANY].mean())
            yield case, "rare flagged", float(found[MANY:].mean())


@lru_cache(maxsize=16)
def _mixed_scores(number: int, rare: int, precision: str) -> np.ndarray:
    together = np.concatenate([embedded("poly", number)[:MANY], embedded("mono", number)[: max(RARE)]])
    chosen = np.arange(MANY + rare)
    return _scores(strip(together[chosen], precision), chosen)


def _alone_scores(number: int, rare: int, precision: str) -> list[np.ndarray]:
    counts = {"poly": MANY, "mono": rare}
    return [_scores(lot_of(name, number, precision).distances, np.arange(n)) for name, n in counts.items()]


def few(number: int, precision: str) -> Measured:
    """Nights of few cells, by themselves and with an earlier night as references."""
    before = (number - 1) % LOTS["poly"]
    for product in cells.PRODUCTS:
        lot, most = lot_of(product, number, precision), max(FEW)
        bad = round(most * FEW_RATE)
        order = np.concatenate([np.arange(most), GOOD[product] + np.arange(bad)])
        accepted = embedded(product, before)[: GOOD[product]]
        to_accepted = _few_shot_like(strip_to(embedded(product, number)[order], accepted, precision))
        earlier = _scores(lot_of(product, before, precision).distances, np.arange(GOOD[product]))
        for n in FEW:
            defective = round(n * FEW_RATE)
            for kind, places in (
                ("clean", np.arange(n)),
                ("night", np.concatenate([np.arange(n - defective), most + np.arange(defective)])),
            ):
                truth = places >= most
                own = _scores(lot.distances, order[places])
                flagged = {
                    AUTO: judge(own, VerdictSettings()).flagged,
                    TOP: judge(own, VerdictSettings(verdict="top", flag_top=FEW_RATE)).flagged,
                    ACCEPTED: judge(to_accepted[places], BY_ACCEPTED, reference=earlier).flagged,
                }
                for verdict, found in flagged.items():
                    case: Case = {"part": "few", "product": product, "n": n, "verdict": verdict}
                    yield case, *(("F1", f1(truth, found)) if kind == "night" else ("flagged", float(found.mean())))
                if kind == "night":
                    yield {"part": "few", "product": product, "n": n, "verdict": "best"}, "F1", best_f1(truth, own)


def _few_shot_like(distances: np.ndarray) -> np.ndarray:
    """Image scores of queries by other images as references, distances (N, M, P)."""
    ordered = Sorted(np.sort(distances.transpose(0, 2, 1), axis=-1))
    return image_scores(ordered.patch_scores(RULE.aggregate, RULE.fraction), RULE.image_top_fraction)


def whole(number: int, precision: str) -> Measured:
    """Defects that fill the picture: the same thing is wrong everywhere in 2 to 20 % of a night of mono cells."""
    good = embedded("mono", number)[:WHOLE_GOOD]
    names = cells_of_lot("mono", number)[0][WHOLE_GOOD : WHOLE_GOOD + max(WHOLE)]
    encoder = shared(DINO, SIZE).encoder
    for how in SPOILT.values():
        pixels = np.stack([fit(spoilt(cells.photo(name), how), SIZE, "squash") for name in names])
        distances = strip(np.concatenate([good, embed_pixels(encoder, pixels)]), precision)
        for count in WHOLE:
            truth = np.arange(WHOLE_GOOD + count) >= WHOLE_GOOD
            scores = _scores(distances, np.arange(len(truth)))
            flagged = judge(scores, VerdictSettings()).flagged
            case: Case = {"part": "whole", "how": how, "count": count}
            yield case, "AUROC", float(roc_auc_score(truth, scores))
            yield case, "F1", f1(truth, flagged)


def spoilt(photo: np.ndarray, how: str) -> np.ndarray:
    """uint8 (H, W, 3): the whole picture, darkened, out of focus or turned."""
    if how == "dark":
        return (photo * 0.6).astype(np.uint8)
    if how == "blurred":
        return cv2.GaussianBlur(photo, (0, 0), 0.01 * photo.shape[0])
    return np.ascontiguousarray(np.rot90(photo))


def _scores(distances: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Image scores of the group of images at ``chosen`` alone."""
    patches = Sorted.of(distances, chosen).patch_scores(RULE.aggregate, RULE.fraction)
    return image_scores(patches, RULE.image_top_fraction)


def sheets(findings: list[Finding]) -> list[Sheet]:
    """A table for each of the three."""
    setting = f"{DINO.label}, {SIZE} px, blocks 6+9+12, nearest {RULE.fraction:.0%}, top 1 %, {arithmetics(findings)}. "
    return [_mixed_sheet(findings, setting), _few_sheet(findings, setting), _whole_sheet(findings, setting)]


def _mixed_sheet(findings: list[Finding], setting: str) -> Sheet:
    rows = []
    for rare in RARE:
        for verdict in (AUTO, GROUP_BY, ACCEPTED):
            case: Case = {"part": "mixed", "rare": rare, "verdict": verdict}
            found = [find(findings, metric, **case) for metric in ("rare flagged", "many flagged")]
            rows.append((f"{rare} mono, {MANY} poly", verdict, *map(mean_and_worst, found)))
    caption = (
        f"{setting}Good cells alone: whatever is flagged is a false alarm. Mean / worst of {LOTS['poly']} nights. "
        f"{GROUP_BY}: mono and poly are groups of their own; {ACCEPTED}: p-values at level 0.01 against the scores of "
        "the night before, mixed alike."
    )
    header = ("night", "verdict", "mono cells flagged", "poly cells flagged")
    return Sheet("Two kinds of good parts in one group", caption, header, tuple(rows))


def _few_sheet(findings: list[Finding], setting: str) -> Sheet:
    rows = []
    for product in cells.PRODUCTS:
        for n in FEW:
            case: Case = {"part": "few", "product": product, "n": n}
            f1s = [find(findings, "F1", **case, verdict=verdict) for verdict in (AUTO, TOP, ACCEPTED, "best")]
            clean = [find(findings, "flagged", **case, verdict=verdict) for verdict in (AUTO, ACCEPTED)]
            rows.append((product, str(n), *(f"{f.mean:.2f}" if f else "" for f in f1s), *map(mean_and_worst, clean)))
    caption = (
        f"{setting}{FEW_RATE:.0%} of the images are defective: F1, mean of {LOTS['poly']} nights; and of clean nights "
        f"the share flagged, mean / worst. {AUTO}: method.md §7.2; {TOP}: the highest {FEW_RATE:.0%} are flagged, "
        f"defective or not; {ACCEPTED}: the good cells of an earlier night ({GOOD['mono']} mono, {GOOD['poly']} poly) "
        "are the references and say the level, 0.01."
    )
    header = (
        *("cells", "images", f"F1, {AUTO}", f"F1, {TOP}", f"F1, {ACCEPTED}", "F1, best possible"),
        *(f"clean night, {verdict}" for verdict in (AUTO, ACCEPTED)),
    )
    return Sheet("Few images", caption, header, tuple(rows))


def _whole_sheet(findings: list[Finding], setting: str) -> Sheet:
    rows = []
    for words, how in SPOILT.items():
        for metric in ("AUROC", "F1"):
            found = [find(findings, metric, part="whole", how=how, count=count) for count in WHOLE]
            rows.append((words, metric, *(f.with_range if f else "" for f in found)))
    caption = (
        f"{setting}{WHOLE_GOOD} good mono cells, and further ones that are spoilt as a whole, all in the same way: "
        f"mean (lowest-highest) of {WHOLE_NIGHTS} nights."
    )
    header = ("what is wrong", "metric", *(f"{n} of {WHOLE_GOOD + n}" for n in WHOLE))
    return Sheet("Defects that fill the picture", caption, header, tuple(rows))
