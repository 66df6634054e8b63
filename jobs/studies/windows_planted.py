"""What a window costs where defects are planted, where parts are moved, and where one defect has one place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from benchmarks.alike import whole_group
from sklearn.metrics import roc_auc_score

from patchead.archive.decode import fit
from patchead.encoders.base import Encoder
from patchead.local import embed_images, score_samples
from patchead.local_samples import Samples
from patchead.samples.align import Alignment
from patchead.scoring.aggregate import Aggregation, image_scores
from patchead.search.bounded_group import BoundedScores
from patchead.search.grid import Grid
from patchead.search.window_group import ALIKE, lies_alike, score_by_window
from studies import aligned, defects, repeats
from studies.defects import cells_of, crops, group_of
from studies.features import DINO, DINO_6_12, embed_pixels
from studies.findings import Case, Finding, Say, Sheet, find
from studies.lots import defective_at
from studies.pixels import USUAL, Shot, metrics
from studies.repeats import Group
from studies.strips import Sorted, strip

STUDY = "windows-planted"
SIZE = 224
RADIUS = 1
FULL, WINDOW, AUTO = "full search", f"r = {RADIUS}", "auto"
WAYS = (FULL, WINDOW, AUTO)
SHOWN = ("image AUROC", "pixel AUROC")
LOSS = 0.005
"""What `auto` may lose against the full search in a row of a table."""
SHARES = (0.0, *repeats.SHARES)
FRACTIONS = (0.3, 0.1, 0.05)
_PRECISION = "fp32"


def run(say: Say) -> list[Finding]:
    """AUROC of every way, by kind of planted defect, by arrangement of moved parts, by share of a repeated defect."""
    findings, encoder = list[Finding](), DINO_6_12.build(SIZE)
    for surface, groups in defects.GROUPS.items():
        for group in groups:
            count = 2 * defects.EACH * len(USUAL)
            shots = group_of(crops(group, count) if surface == "textures" else cells_of(group, count))
            pixels = np.stack([fit(shot.image, SIZE, "squash") for shot in shots])
            findings += of_planted(shots, embed_pixels(encoder, pixels), {"set": "planted", "group": group})
            say(f"windows, planted defects: {group}")
    encoder = DINO_6_12.build(SIZE, attention=True)
    for name in aligned.OBJECTS:
        things = aligned.things_of(name)
        for arrangement, (shift, turn, flips) in aligned.ARRANGEMENTS.items():
            shots = aligned.arranged(things, shift=shift, turn=turn, flips=flips)
            findings += of_moved(shots, encoder, {"set": "moved", "object": name, "arrangement": arrangement})
            say(f"windows, {name}, {arrangement}")
    for surface, good in repeats.GOOD.items():
        findings += of_repeats(repeats.planted_group(surface, _PRECISION), good, {"set": "repeats", "surface": surface})
        say(f"windows, one defect repeated: {surface}")
    return findings


def by_window(embeddings: np.ndarray, full: np.ndarray, rule: Aggregation) -> tuple[dict[str, np.ndarray], float]:
    """Patch scores of a group by every way, and how alike its parts lie (method.md §11).

    Args:
        embeddings: float16 (n, P, D), on a square grid.
        full: float32 (n, P), patch scores of the full search.
        rule: how distances become scores.
    """
    scored = score_by_window(whole_group(embeddings, replace(rule, window=RADIUS)), anyway=True)
    assert isinstance(scored, BoundedScores)  # only of `auto`
    alike = float(scored.facts["alike"])
    ways = {FULL: full, WINDOW: scored.patch_scores, AUTO: scored.patch_scores if alike >= ALIKE else full}
    return ways, alike


def of_planted(shots: Sequence[Shot], embeddings: np.ndarray, case: Case) -> Iterator[Finding]:
    """Figures of each kind of defect: the good photos and those with this kind alone are a group."""
    distances, rule = strip(embeddings, _PRECISION), defects.RULE
    side = int(embeddings.shape[1] ** 0.5)
    for kind in USUAL:
        chosen = np.array([index for index, shot in enumerate(shots) if shot.kind in ("", kind)])
        full = Sorted.of(distances, chosen).patch_scores(rule.aggregate, rule.fraction)
        ways, alike = by_window(embeddings[chosen], full, rule)
        yield Finding(STUDY, {**case, "kind": kind}, "alike", (alike,))
        for way, patches in ways.items():
            maps, scores = patches.reshape(-1, side, side), image_scores(patches, rule.image_top_fraction)
            yield from _four([shots[i] for i in chosen], maps, scores, {**case, "kind": kind, "way": way})


def of_moved(shots: Sequence[Shot], encoder: Encoder, case: Case) -> Iterator[Finding]:
    """Figures of one arrangement, as the photos are and aligned; also of a window that would be refused."""
    samples = embed_images([shot.image for shot in shots], encoder, align=Alignment())
    for method, some in zip(("base", "+alignment"), (aligned.as_they_are(samples), samples), strict=True):
        of, rule = {**case, "method": method}, replace(aligned.RULE, window=RADIUS)
        compared = whole_group(some.embeddings, rule)
        grid = Grid.of(some.grid, some.embeddings.shape[1])
        alike = lies_alike(replace(compared, grid=grid), RADIUS).share
        yield Finding(STUDY, of, "alike", (alike,))
        full = _searched(some, aligned.RULE)
        if grid.views == 1:
            patches = by_window(some.embeddings, full[0].reshape(len(shots), -1), aligned.RULE)[0][WINDOW]
            windowed = patches.reshape(full[0].shape), image_scores(patches, rule.image_top_fraction)
        else:
            windowed = _searched(some, rule)
        for way, (maps, scores) in {FULL: full, WINDOW: windowed, AUTO: windowed if alike >= ALIKE else full}.items():
            yield from _four(shots, maps, scores, {**of, "way": way})


def of_repeats(groups: dict[tuple[str, str], Group], good: int, case: Case) -> Iterator[Finding]:
    """Image AUROC of one defect in a growing share of a night; share 0: one photo, the mean of a few such nights."""
    for (defect, place), group in groups.items():
        alone = [np.r_[:good, photo] for photo in range(good, good + repeats.SINGLES)]
        for share in SHARES:
            nights = [np.arange(good + defective_at(share, good))] if share else alone
            for fraction in FRACTIONS:
                of: Case = {**case, "defect": defect, "place": place, "share": share, "fraction": fraction}
                values, alike = {way: list[float]() for way in WAYS}, []
                for night in nights:
                    some, truth = group.at(night), np.arange(len(night)) >= good
                    rule = Aggregation("nearest", fraction, repeats.TOP)
                    full = Sorted.of(some.distances, np.arange(len(night))).patch_scores(rule.aggregate, fraction)
                    ways, how = by_window(some.embeddings, full, rule)
                    alike.append(how)
                    for way, patches in ways.items():
                        values[way].append(float(roc_auc_score(truth, image_scores(patches, rule.image_top_fraction))))
                yield Finding(STUDY, of, "alike", tuple(alike))
                yield from (Finding(STUDY, {**of, "way": way}, SHOWN[0], tuple(found)) for way, found in values.items())


def _searched(samples: Samples, rule: Aggregation) -> tuple[np.ndarray, np.ndarray]:
    """Patch scores (N, h, w), no bounds among them, and image scores."""
    scores = score_samples(samples, aggregation=rule)
    return scores.searched(np.ones(len(scores.image_scores), bool)), scores.image_scores


def _four(shots: Sequence[Shot], maps: np.ndarray, scores: np.ndarray, case: Case) -> Iterator[Finding]:
    for metric, value in metrics(shots, maps, scores).items():
        yield Finding(STUDY, case, metric, (value,))


def sheets(findings: list[Finding]) -> list[Sheet]:
    """Planted defects, moved parts, and one defect repeated."""
    return [_planted(findings), _moved(findings), _repeated(findings)]


def _planted(findings: list[Finding]) -> Sheet:
    rows, losses = [], Losses()
    for group in (group for groups in defects.GROUPS.values() for group in groups):
        cases: list[Case] = [{"set": "planted", "group": group, "kind": kind} for kind in USUAL]
        figures = [_means(findings, metric, cases, losses) for metric in SHOWN]
        rows.append((group, _alike(findings, cases), *(text for pair in figures for text in pair)))
    caption = (
        f"{DINO.label}, {SIZE} px, blocks 6+12, nearest {defects.RULE.fraction:.0%}, {_PRECISION}; photos and defects "
        f'of "Planted defects, by pixel": mean of {len(USUAL)} kinds. {losses.told("one kind")}'
    )
    header = ("photos", "lie alike", *(f"{metric}, {way}" for metric in SHOWN for way in WAYS))
    return Sheet("The window, on planted defects", caption, header, tuple(rows))


def _moved(findings: list[Finding]) -> Sheet:
    rows, losses = [], Losses()
    for name in aligned.OBJECTS:
        for arrangement in aligned.ARRANGEMENTS:
            for method in ("base", "+alignment"):
                at: Case = {"set": "moved", "object": name, "arrangement": arrangement, "method": method}
                figures = [_means(findings, metric, [at], losses) for metric in SHOWN]
                figures_of_row = (text for pair in figures for text in pair)
                rows.append((name, arrangement, method, _alike(findings, [at]), *figures_of_row))
    caption = (
        f"{DINO.label}, {SIZE} px, blocks 6+12, nearest {aligned.RULE.fraction:.0%}, {_PRECISION}; the photos of "
        f'"Shift and rotation". Without alignment, r = {RADIUS} is refused below {ALIKE}; its figures are those that '
        f"it would have. {losses.told('one arrangement')}"
    )
    header = ("object", "arrangement", "method", "lie alike", *(f"{metric}, {way}" for metric in SHOWN for way in WAYS))
    return Sheet("The window, on moved parts", caption, header, tuple(rows))


def _repeated(findings: list[Finding]) -> Sheet:
    rows, losses = [], Losses()
    for surface in repeats.GOOD:
        for defect in repeats.DEFECTS:
            for place in repeats.PLACES:
                for fraction in FRACTIONS:
                    at: Case = {"set": "repeats", "surface": surface, "defect": defect, "place": place}
                    cases: list[Case] = [{**at, "fraction": fraction, "share": share} for share in SHARES]
                    each = [_means(findings, SHOWN[0], [case], losses, digits=2) for case in cases]
                    columns = (" / ".join(texts) for texts in zip(*each, strict=True))
                    rows.append((surface, defect, place, f"{fraction:.0%}", _alike(findings, cases), *columns))
    shares = " / ".join(f"{share:.0%}" for share in repeats.SHARES)
    caption = (
        f'{DINO.label}, {SIZE} px, blocks 6+9+12, {_PRECISION}; the photos of "One defect repeated", without '
        f"`scoring.repeats`, which goes with no window: image AUROC with one such photo (mean of {repeats.SINGLES}) / "
        f"in {shares} of the night. {losses.told('one night')}"
    )
    header = ("photos", "defect", "at", "nearest", "lie alike", *WAYS)
    return Sheet("The window, on one defect repeated", caption, header, tuple(rows))


class Losses:
    """The largest loss against the full search, of each other way; 0 where none loses."""

    def __init__(self) -> None:
        self.largest = {WINDOW: 0.0, AUTO: 0.0}

    def add(self, full: float, way: str, value: float) -> None:
        """One figure of a way beside that of the full search."""
        if way in self.largest:
            self.largest[way] = max(self.largest[way], full - value)

    def told(self, of: str) -> str:
        """In words, with what `auto` may lose."""
        window, auto = (f"{self.largest[way]:.3f}" for way in (WINDOW, AUTO))
        met = "met" if self.largest[AUTO] <= LOSS else "not met"
        return f"Largest loss of {of}, any figure: r = {RADIUS} {window}, auto {auto} (at most {LOSS}: {met})."


def _means(
    findings: list[Finding], metric: str, cases: list[Case], losses: Losses, *, digits: int = 3
) -> tuple[str, ...]:
    """Of every way the mean of the cases, as text; ``losses`` takes what each case loses."""
    texts = []
    for way in WAYS:
        values = []
        for case in cases:
            full, found = (find(findings, metric, **case, way=which) for which in (FULL, way))
            if full and found:
                losses.add(full.mean, way, found.mean)
                values.append(found.mean)
        texts.append(f"{np.mean(values):.{digits}f}" if values else "-")
    return tuple(texts)


def _alike(findings: list[Finding], cases: list[Case]) -> str:
    """The lowest and the highest measure of the cases' groups."""
    values = [value for case in cases for f in [find(findings, "alike", **case)] if f for value in f.values]
    return f"{min(values):.2f}-{max(values):.2f}" if len(values) > 1 else "".join(f"{value:.2f}" for value in values)
