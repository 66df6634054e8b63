"""One night's settings: one YAML file is one `Config`, checked as a whole.

The sections are in `images` (what is read), `method` (how it is scored), `naming` (what is found is called) and
`places` (where). Jobs, the command line,
the notebook call, the nightly run and the evaluation read them; everything below takes plain arguments.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pydantic import model_validator

from patchead.naming.control_words import CONTROL_WORDS, most_types
from patchead.redaction import secrets_in
from patchead.samples.stand_ins import ENOUGH
from patchead.settings.images import ArchiveConfig, PromptsConfig
from patchead.settings.method import AlignConfig, EncoderConfig, ExplainConfig, MaskConfig, ScoringConfig
from patchead.settings.naming import NamingConfig
from patchead.settings.places import (
    LakeConfig,
    ReportConfig,
    ResourcesConfig,
    RetentionConfig,
    RunConfig,
    StorageConfig,
)
from patchead.settings.presets import Preset, beneath
from patchead.settings.section import Section

_MOST_Z_OF_ACCEPTED = 6  # of p = 1e-9
_MOST_Z_OF_PROMPTS = 37  # of p = 1e-300, the smallest there is


class Config(Section):
    """One night's job: every setting of every stage."""

    preset: Preset = "none"
    """Published settings beneath those that are given: patchead (last layer, 448 px) or musc (ViT-L/14-336, 518 px)."""
    archive: ArchiveConfig
    encoder: EncoderConfig = EncoderConfig()
    prompts: PromptsConfig = PromptsConfig()
    align: AlignConfig = AlignConfig()
    mask: MaskConfig = MaskConfig()
    scoring: ScoringConfig = ScoringConfig()
    explain: ExplainConfig = ExplainConfig()
    naming: NamingConfig = NamingConfig()
    lake: LakeConfig
    retention: RetentionConfig = RetentionConfig()
    storage: StorageConfig = StorageConfig()
    resources: ResourcesConfig = ResourcesConfig()
    report: ReportConfig = ReportConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="before")
    @classmethod
    def _preset_beneath(cls, given: Any) -> Any:
        return beneath(given.get("preset"), given) if isinstance(given, Mapping) else given

    @model_validator(mode="after")
    def _no_secrets(self) -> Config:
        for key, found in secrets_in(self.model_dump(mode="json")):
            raise ValueError(f"{key} holds {found}. Settings are recorded: give keys by the environment instead")
        return self

    @model_validator(mode="after")
    def _lake_outside_archive(self) -> Config:
        archive, lake = (_comparable(uri) + "/" for uri in (self.archive.uri, self.lake.uri))
        if lake.startswith(archive):
            raise ValueError(
                f"lake.uri {self.lake.uri!r} lies inside archive.uri; heatmaps would be scored as images. Name another "
                "folder, e.g. --lake ../patchead-lake"
            )
        prompts = _comparable(self.prompts.uri) + "/" if self.prompts.uri else None
        if prompts and (lake.startswith(prompts) or prompts.startswith(lake)):
            raise ValueError(f"prompts.uri {self.prompts.uri!r} and lake.uri overlap; heatmaps would be prompts")
        return self

    @model_validator(mode="after")
    def _prompts_for_few_shot(self) -> Config:
        few_shot = self.scoring.mode == "few_shot"
        if few_shot and self.prompts.uri is None:
            raise ValueError("scoring.mode few_shot needs prompts.uri, a folder or URL of normal images")
        if few_shot and self.scoring.max_references is not None:
            raise ValueError("scoring.max_references is a panel of the batch; in few_shot mode set prompts.k")
        if not few_shot and self.prompts.uri is not None:
            raise ValueError("prompts.uri is given, but scoring.mode is batch; set it to few_shot or remove prompts")
        return self

    @model_validator(mode="after")
    def _accepted_run_has_a_use(self) -> Config:
        scoring = self.scoring
        with_embeddings = scoring.references == "accepted"
        if with_embeddings and scoring.mode == "few_shot":
            raise ValueError("scoring.references accepted is for scoring.mode batch; in few_shot mode prompts are it")
        if with_embeddings and self.align.enabled:
            raise ValueError(
                "scoring.references accepted cannot be aligned (align.enabled): the accepted photos were moved onto "
                "one of their own night"
            )
        if (scoring.by_accepted or with_embeddings) and scoring.window == "auto":
            raise ValueError(
                "scoring.window auto is settled night by night, and such scores are not comparable with an accepted "
                "run's; set it off or to a number of cells"
            )
        if scoring.accepted is not None and not (scoring.by_accepted or with_embeddings):
            raise ValueError("scoring.accepted is given; set scoring.verdict reference or scoring.references accepted")
        if scoring.false_discovery is not None and not scoring.by_accepted:
            raise ValueError("scoring.false_discovery needs the p-values of scoring.verdict reference")
        if scoring.false_discovery is not None and (scoring.threshold_z is not None or scoring.thresholds):
            raise ValueError("scoring.false_discovery takes the place of threshold_z and thresholds; remove these")
        return self

    @model_validator(mode="after")
    def _z_that_p_values_reach(self) -> Config:
        scoring = self.scoring
        if scoring.by_accepted:
            most, why = _MOST_Z_OF_ACCEPTED, "by an accepted run, where it takes a billion scores"
        elif scoring.mode == "few_shot" and scoring.verdict == "auto":
            most, why = _MOST_Z_OF_PROMPTS, "by prompts, whose p-values end there"
        else:
            return self
        given = {"threshold_z": scoring.threshold_z} | {
            f"thresholds.{k}.z": own.z for k, own in scoring.thresholds.items()
        }
        for key, z in given.items():
            if z is not None and z > most:
                raise ValueError(f"scoring.{key} must be at most {most} {why}; got {z:g}. Lower it")
        return self

    @model_validator(mode="after")
    def _words_from_one_place(self) -> Config:
        naming = self.naming
        if naming.keywords and naming.words is not None:
            raise ValueError(
                "naming.words, a file of tuned words, takes the place of naming.keywords; give one of them"
            )
        if naming.keywords and naming.control_words:
            most = most_types(len(CONTROL_WORDS), naming.level)
            if len(naming.keywords) > most:
                raise ValueError(
                    f"naming.keywords has {len(naming.keywords)} types; at naming.level {naming.level} the control "
                    f"words can tell at most {most} apart from chance. Join some, or set naming.control_words false"
                )
        return self

    @model_validator(mode="after")
    def _window_without_moved_prompts(self) -> Config:
        scoring = self.scoring
        if scoring.mode == "few_shot" and self.align.enabled and scoring.window != "off":
            raise ValueError(
                f"scoring.window {scoring.window} and align.enabled cannot be combined in few_shot mode: prompts that "
                "were moved onto a photo are searched as a whole. Set one of the two to off"
            )
        return self

    @model_validator(mode="after")
    def _window_with_enough_prompts(self) -> Config:
        k, window = self.prompts.k, self.scoring.window
        if self.scoring.mode == "few_shot" and k is not None and k < ENOUGH and isinstance(window, int):
            raise ValueError(
                f"scoring.window {window} needs {ENOUGH} prompts that differ, and prompts.k is {k}: moved views stand "
                "in for more, and score so high within a window that nothing would be flagged. Raise prompts.k, or "
                "set scoring.window to off or auto"
            )
        return self

    @model_validator(mode="after")
    def _repeats_in_the_full_search(self) -> Config:
        scoring = self.scoring
        leave_patches_out = {"window": scoring.window != "off", "schedule": scoring.schedule == "bounded"}
        for name, does in leave_patches_out.items():
            if scoring.repeats and does:
                raise ValueError(
                    f"scoring.repeats needs the distances of every patch, and scoring.{name} "
                    f"{getattr(scoring, name)} leaves some out; give one of the two up"
                )
        return self

    @model_validator(mode="after")
    def _position_level_of_a_whole_group(self) -> Config:
        scoring = self.scoring
        against = {
            "scoring.schedule bounded": (scoring.schedule == "bounded", "leaves patches out"),
            "scoring.window auto": (scoring.window == "auto", "may leave patches out; a number does not"),
            "scoring.references accepted": (scoring.references == "accepted", "scores however few images"),
            "align.enabled true": (self.align.enabled, "moves parts, so that places lie elsewhere in each photo"),
        }
        for name, (given, why) in against.items():
            if scoring.position_level and scoring.mode == "batch" and given:
                raise ValueError(
                    f"scoring.position_level needs the scores of a place in all images of the group, and {name} {why}; "
                    "give one of the two up"
                )
        return self


def _comparable(uri: str) -> str:
    """An address in the one form in which two of them can be compared."""
    uri = uri.removeprefix("file://").replace("s3a://", "s3://", 1)
    return (uri if "://" in uri else os.path.abspath(uri)).rstrip("/")  # noqa: PTH100 - no symlink is resolved
