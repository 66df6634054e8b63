"""A night whose images are embedded: its groups, what each is compared with, and how they will be scored."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from patchead.lake.embeddings import EmbeddingStore
from patchead.nightly.accepted import AcceptedGroups
from patchead.nightly.embed import EncoderFacts
from patchead.nightly.group import Group, GroupPrompts, compared_digest
from patchead.nightly.score_spec import ScoreSettings
from patchead.plan.planned import Plan

Groups = dict[str, pa.Table]


@dataclass(frozen=True, kw_only=True)
class EmbeddedNight:
    """Hold a night whose images are embedded."""

    manifest: pa.Table
    images: pa.Table
    """The manifest with the receipts' columns, one row per image."""
    groups: Groups
    """Those of the images that can be scored, by group."""
    prompts: dict[str, GroupPrompts]
    """What each group is compared with in place of itself: prompts or accepted images; empty where it is itself."""
    accepted: AcceptedGroups
    plan: Plan
    encoder: EncoderFacts
    store: EmbeddingStore

    def group_of(self, name: str) -> Group:
        """Make the group of that id: its images, and the references that are none of them."""
        return Group.of(name, self.groups[name], self.prompts.get(name))

    def digests(self, settings: ScoreSettings) -> dict[str, str]:
        """Give of each group the digest of all that its scores depend on."""
        of = {name: [self.prompts[name]] if name in self.prompts else [] for name in self.groups}
        return {name: settings.digest_of(compared_digest([self.groups[name]], of[name])) for name in self.groups}
