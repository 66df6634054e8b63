"""One defect on many parts of a night: what still sees it, and what looking for repeats costs where none is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from planted import plant
from sklearn.metrics import roc_auc_score

from patchead.archive.decode import fit
from patchead.scoring.aggregate import Aggregation, count_references, image_scores, neighbours, reference_mask
from patchead.scoring.position_level import above_position_level
from patchead.scoring.rescore import Compared, Rescored, rescore
from patchead.scoring.subspace import subspace_residuals
from patchead.scoring.verdict import VerdictSettings, judge
from patchead.settings.resolve import settled_precision
from studies.cells import PRODUCTS
from studies.defects import cells_of, crops
from studies.features import DINO, embed_pixels, shared
from studies.findings import Case, Finding, Say, Sheet, arithmetics, find, mean_and_worst
from studies.lots import SIZE, arithmetic, defective_at, embedded, lot_of
from studies.strips import Sorted, strip

STUDY = "repeats"
#: Good photos of a night with one defect in many places, by product or texture.
GOOD = {"mono": 100, "poly": 60, "brick": 60}
DEFECTS = ("scratch", "hole")
PLACES = ("same place", "random places")
SHARES = (0.03, 0.06, 0.11, 0.2, 0.3)
#: Up to this share nothing may be lost; of more, the defect is what a part of the good ones looks like.
UP_TO = 0.2
#: Those at which the slowest way, the subspace residual, is measured; 0: one defective photo.
SUBSPACE_SHARES = (0.0, 0.11, 0.2, 0.3)
#: Nights with one defective photo whose mean stands in the table; the photos up to `UP_TO` have such a night, too.
SINGLES = 2
#: Lots of each product that ordinary nights are drawn from, and their share of defective cells.
LOTS = 4
RATE = 0.1
TOP = 0.01
FRACTIONS = (0.3, 0.2, 0.1, 0.05)
SUBSPACE, RANKS = "subspace residual", "ranks 5 to 30 %"
#: The position level (method.md §9.1) of what another way gives.
POSITION = {way: f"position level, {way}" for way in ("nearest 20%", "nearest 10%, repeats")}
_NEAREST = (f"nearest {f:.0%}{more}" for f in FRACTIONS for more in ("", ", repeats"))
WAYS = (*_NEAREST, SUBSPACE, *POSITION.values(), RANKS)
#: What no planting may lose against one defective photo, and what an ordinary night may lose.
LOSS, COST = 0.02, 0.005
_MEMORY = 10**9


@dataclass(frozen=True)
class Group:
    """One night: embeddings float16 (n, P, D), distances float32 (n, n, P), and how they were compared."""

    embeddings: np.ndarray
    distances: np.ndarray
    precision: str
    grid: tuple[int, int]

    def at(self, chosen: np.ndarray) -> Group:
        """The images at ``chosen`` alone."""
        return replace(self, embeddings=self.embeddings[chosen], distances=self.distances[np.ix_(chosen, chosen)])


@dataclass(frozen=True)
class Scored:
    """Image scores float64 (n,), and bool (n,): the images that were put into a repeat."""

    scores: np.ndarray
    grouped: np.ndarray


def run(say: Say) -> list[Finding]:
    """AUROC of every way on every planting; then ordinary nights and clean ones, a value per night."""
    precision = settled_precision("auto", "cpu")
    findings = []
    for surface, good in GOOD.items():
        for case, way, metric, values in of_plantings(planted_group(surface, precision), good):
            whole: Case = {"surface": surface, **case, "way": way, "arithmetic": arithmetic(precision)}
            findings.append(Finding(STUDY, whole, metric, values))
        say(f"repeats: {surface}, planted")
    return findings + _ordinary(precision, say)


def planted_group(surface: str, precision: str) -> dict[tuple[str, str], Group]:
    """For each defect and placing a group: the good photos, then those with the defect, each embedded once."""
    count = GOOD[surface]
    more = defective_at(max(SHARES), count)
    photos = (cells_of if surface in PRODUCTS else crops)(surface, count + more)
    order = np.random.default_rng(0).permutation(len(photos)).tolist()
    encoder = shared(DINO, SIZE).encoder
    images = [photos[i] for i in order[:count]]
    kinds = [(defect, place) for defect in DEFECTS for place in PLACES]
    for defect, place in kinds:
        seeds = [0] * more if place == PLACES[0] else range(1, more + 1)
        images += [plant(photos[i], defect, seed).image for i, seed in zip(order[count:], seeds, strict=True)]
    embeddings = embed_pixels(encoder, np.stack([fit(image, SIZE, "squash") for image in images]))
    every = Group(embeddings, strip(embeddings, precision), precision, encoder.grid)
    return {
        key: every.at(np.r_[:count, count + turn * more : count + (turn + 1) * more]) for turn, key in enumerate(kinds)
    }


def of_plantings(groups: dict[tuple[str, str], Group], good: int) -> Iterator[tuple[Case, str, str, tuple[float, ...]]]:
    """(defect, place and share), way, metric and values: AUROC, and how many images of which sort are in a repeat.

    Share 0: one defective photo, a value per photo.
    """
    for (defect, place), group in groups.items():
        alone = [np.r_[:good, photo] for photo in range(good, good + defective_at(UP_TO, good))]
        for share in (0.0, *SHARES):
            nights = [np.arange(good + defective_at(share, good))] if share else alone
            found = [by_way(group.at(night), subspace=share in SUBSPACE_SHARES) for night in nights]
            case: Case = {"night": "planted", "defect": defect, "place": place, "share": share}
            truth = np.arange(len(nights[0])) >= good
            for way in found[0]:
                scored = [ways[way] for ways in found]
                yield case, way, "AUROC", tuple(float(roc_auc_score(truth, one.scores)) for one in scored)
                yield from ((case, way, *grouped) for grouped in _grouped(scored, truth))


def by_way(group: Group, *, subspace: bool) -> dict[str, Scored]:
    """One night by every way, by the subspace residual if it is wanted."""
    ordered = Sorted.of(group.distances, np.arange(len(group.distances)))
    nobody = np.zeros(len(group.distances), bool)
    out = {}
    for fraction in FRACTIONS:
        rule = Aggregation("nearest", fraction, TOP)
        patches = ordered.patch_scores(rule.aggregate, fraction)
        again = looked_again(group, patches, rule)
        name = f"nearest {fraction:.0%}"
        found = {name: (patches, nobody), f"{name}, repeats": (again.patch_scores, again.repeat_groups > 0)}
        for way, (scores, grouped) in found.items():
            out[way] = Scored(image_scores(scores, TOP), grouped)
            if way in POSITION:
                out[POSITION[way]] = Scored(image_scores(above_position_level(scores), TOP), grouped)
    low, high = (int(neighbours(len(nobody) - 1, fraction)) for fraction in (min(FRACTIONS), max(FRACTIONS)))
    out[RANKS] = Scored(image_scores(ordered.distances[:, :, low:high].mean(axis=-1), TOP), nobody)
    if subspace:
        residuals = np.concatenate(list(subspace_residuals(lambda: [group.embeddings], group.embeddings.shape[2])))
        out[SUBSPACE] = Scored(image_scores(residuals, TOP), nobody)
    return out


def looked_again(group: Group, patches: np.ndarray, rule: Aggregation) -> Rescored:
    """Patch scores after the images of repeats were scored again, from the distances that are there."""
    everyone, nobody = np.arange(len(patches)), np.full(len(patches), -1)
    counts = count_references(everyone, nobody)
    compared = Compared(
        content=everyone,
        part=nobody,
        references=everyone,
        aggregation=replace(rule, repeats=True),
        device="cpu",
        precision=group.precision,
        memory_bytes=_MEMORY,
        grid=group.grid,
    )
    test = compared.burn_out(everyone, patches.shape[1], counts)
    if test is None:
        raise ValueError(f"{rule} looks for no repeats")
    test.add(torch.from_numpy(group.distances), reference_mask(everyone, nobody, everyone, everyone), everyone)
    return rescore(patches, counts, [test.result()], compared, lambda index: group.embeddings[index])


def _ordinary(precision: str, say: Say) -> list[Finding]:
    findings = []
    for product in PRODUCTS:
        values: dict[tuple[float, str, str], list[float]] = {}
        for number in range(LOTS):
            lot, grid = lot_of(product, number, precision), shared(DINO, SIZE).encoder.grid
            every = Group(embedded(product, number), lot.distances, precision, grid)
            for rate in (0.0, RATE):
                chosen, truth = lot.night(rate, draw=0)
                for key, value in of_night(every.at(chosen), truth):
                    values.setdefault((rate, *key), []).append(value)
            say(f"repeats: {product}, lot {number}")
        for (rate, way, metric), found in values.items():
            case: Case = {"night": "ordinary", "surface": product, "share": rate, "way": way}
            findings.append(Finding(STUDY, {**case, "arithmetic": arithmetic(precision)}, metric, tuple(found)))
    return findings


def of_night(group: Group, truth: np.ndarray) -> Iterator[tuple[tuple[str, str], float]]:
    """(way, metric) and its value on a night: AUROC where there are defects, the share flagged where there are none."""
    for way, scored in by_way(group, subspace=bool(truth.any())).items():
        if truth.any():
            yield (way, "AUROC"), float(roc_auc_score(truth, scored.scores))
        else:
            yield (way, "flagged"), float(judge(scored.scores, VerdictSettings()).flagged.mean())
        for metric, counts in _grouped([scored], truth):
            yield (way, metric), counts[0]


def _grouped(scored: list[Scored], truth: np.ndarray) -> Iterator[tuple[str, tuple[float, ...]]]:
    """How many defective and how many good images are in a repeat."""
    yield "defective in a repeat", tuple(float(one.grouped[truth].sum()) for one in scored)
    yield "good in a repeat", tuple(float(one.grouped[~truth].sum()) for one in scored)


def sheets(findings: list[Finding]) -> list[Sheet]:
    """AUROC of every planting, which plantings were found as repeats, and ordinary nights."""
    return [_plantings(findings), _found(findings), _nights(findings)]


def _plantings(findings: list[Finding]) -> Sheet:
    rows, lost, hidden = [], {way: list[float]() for way in WAYS}, {way: list[float]() for way in WAYS}
    for surface, defect, place in _kinds():
        cells_of_row = []
        for way in WAYS:
            case: Case = {"night": "planted", "surface": surface, "defect": defect, "place": place, "way": way}
            alone = one.values if (one := find(findings, "AUROC", **case, share=0.0)) else ()
            means = {share: one.mean for share in SHARES if (one := find(findings, "AUROC", **case, share=share))}
            first = float(np.mean(alone[:SINGLES])) if alone else None
            figures = [first, *(means.get(share) for share in SHARES)]
            cells_of_row.append(" / ".join("-" if value is None else f"{value:.2f}" for value in figures))
            if first is None:
                continue
            for share, mean in means.items():
                if share > UP_TO:
                    continue
                lost[way].append(first - mean)
                same = alone[: defective_at(share, GOOD[surface])]
                hidden[way].append(float(np.mean(same)) - mean)
        rows.append((surface, defect, place, *cells_of_row))
    for against, losses in ((f"the first {SINGLES} alone", lost), ("the same photos alone", hidden)):
        largest = (f"{max(values, default=0):.3f}" for values in losses.values())
        rows.append(("all", "", f"largest loss against {against}", *largest))
        counts = (_count(values, LOSS) for values in losses.values())
        rows.append(("all", "", f"losses over {LOSS} against {against}", *counts))
    caption = (
        f"{DINO.label}, {SIZE} px, blocks 6+9+12, top 1 %, {arithmetics(findings)}. "
        f"{', '.join(f'{count} {name}' for name, count in GOOD.items())} good photos (cells; crops), and the same "
        f"defect in one more photo (mean of {SINGLES}) / in {' / '.join(f'{share:.0%}' for share in SHARES)} of the "
        f"night: image AUROC. Repeats: with `scoring.repeats`. Loss: target at most {LOSS} up to {UP_TO:.0%}. Against "
        f"the first {SINGLES} photos, each the only one with the defect, it holds more than what hides: a hole can be "
        "harder to see in other photos. Against the same photos, each alone among the good ones, it holds nothing else."
    )
    return Sheet("One defect repeated", caption, ("photos", "defect", "at", *WAYS), tuple(rows))


def _found(findings: list[Finding]) -> Sheet:
    way, rows = WAYS[1], []
    for surface, defect, place in _kinds():
        case: Case = {"night": "planted", "surface": surface, "defect": defect, "place": place, "way": way}
        cells_of_row = []
        for share in SHARES:
            bad, good = (find(findings, f"{sort} in a repeat", **case, share=share) for sort in ("defective", "good"))
            if bad and good:
                cells_of_row.append(f"{bad.mean:.0f} of {defective_at(share, GOOD[surface])}, {good.mean:.0f}")
        rows.append((surface, defect, place, *cells_of_row))
    caption = f"Photos with the defect that were put into a repeat, and good photos that were ({way})."
    return Sheet("Repeats found", caption, ("photos", "defect", "at", *(f"{s:.0%}" for s in SHARES)), tuple(rows))


def _nights(findings: list[Finding]) -> Sheet:
    rows = []
    for product in PRODUCTS:
        for way in WAYS:
            plain = way.removesuffix(", repeats") if way.startswith("nearest") else WAYS[0]
            case: Case = {"night": "ordinary", "surface": product}
            at, base = (find(findings, "AUROC", **case, share=RATE, way=name) for name in (way, plain))
            flagged = find(findings, "flagged", **case, share=0.0, way=way)
            if not (at and base):
                continue
            less = [one - other for one, other in zip(at.values, base.values, strict=True)]
            difference = f"{np.mean(less):+.4f} / {min(less):+.4f}" if way != plain else ""
            counts = [
                _total(findings, f"{sort} in a repeat", **case, share=share, way=way)
                for sort, share in (("defective", RATE), ("good", RATE), ("good", 0.0))
            ]
            grouped = counts if way.endswith("repeats") else ("", "", "")
            rows.append((product, way, f"{at.mean:.4f}", difference, mean_and_worst(flagged), *grouped))
    caption = (
        f"elpv-dataset, lots as in the verdict's nights, {LOTS} of each product, {arithmetics(findings)}: a night with "
        f"{RATE:.0%} defective cells and a clean one of each lot. AUROC: mean. Difference to the same without repeats, "
        f"or to nearest 30%: mean / worst night; target of repeats: no worse than -{COST} in the mean. "
        "Flagged: mean / worst of the clean nights. In a repeat: images of all nights together."
    )
    header = (
        *("cells", "way", "AUROC", "difference", "clean nights: flagged", "defective in a repeat"),
        *("good in a repeat", "clean nights: in a repeat"),
    )
    return Sheet("Looking for repeats on ordinary nights", caption, header, tuple(rows))


def _kinds() -> list[tuple[str, str, str]]:
    return [(surface, defect, place) for surface in GOOD for defect in DEFECTS for place in PLACES]


def _count(values: list[float], limit: float) -> str:
    return f"{sum(value > limit for value in values)} of {len(values)}"


def _total(findings: list[Finding], metric: str, **case: str | int | float) -> str:
    found = find(findings, metric, **case)
    return f"{sum(found.values):.0f}" if found else ""
