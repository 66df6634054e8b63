"""The archive and the encoder as a plan needs them: counts; no weights, no Ray, not a single write."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa

from patchead.archive.catalog import catalog
from patchead.archive.left_out import LeftOut
from patchead.arrow_columns import run_boundaries
from patchead.encoders import EncoderShape, describe
from patchead.errors import SettingsError, bad_value
from patchead.forecast.cluster import Cluster
from patchead.forecast.device_speeds import DeviceFigures
from patchead.forecast.feed import DecodingPace, Drawing, decoding_pace, evenly_sampled
from patchead.forecast.stages import IMAGINED, Night, cores_of, per_image, shown_images
from patchead.nightly import wiring
from patchead.nightly.prompts import list_prompts
from patchead.plan.group_plan import Limits, make_plan
from patchead.plan.planned import Plan, PromptCounts
from patchead.review.references import counts
from patchead.runtime.pool import CPUS_PER_ACTOR
from patchead.settings.model import Config
from patchead.settings.modes import accepted_references
from patchead.settings.resolve import with_precision


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Hold the archive as counted: images per group, unreadable ones and other files; and the shape of an embedding.

    ``references`` counts, for each group, prompts or accepted images; None where a group is compared with itself.
    """

    sizes: list[tuple[str, int]]
    images: int
    left_out: LeftOut
    unreadable: LeftOut
    shape: EncoderShape
    references: dict[str, PromptCounts] | None
    sample: pa.Table | None
    """Some readable images of the archive, see `feed.evenly_sampled`; None where it is imagined."""

    def plan(self, config: Config, limits: Limits) -> Plan:
        """Plan as `nightly.run` would."""
        patches = wiring.patches_per_sample(config, self.shape)
        return make_plan(self.sizes, patches, self.shape.dim, limits, self.references)

    def night(self, config: Config, plan: Plan, cluster: Cluster | None, cores_per_node: int | None) -> Night:
        """Reckon the stages other than scoring; some images of the archive are decoded for it.

        Raises:
            SettingsError: ``cores_per_node`` is below 1.
        """
        if cores_per_node is not None and cores_per_node < 1:
            raise SettingsError(bad_value("--cores-per-node", cores_per_node, "at least 1"))
        figures = cluster.figures if cluster else None
        return Night(
            images=self.images - self.broken,
            shown=shown_images(
                (group.images - group.nulls for group in plan.scored), config.explain.top, config.explain.heatmaps
            ),
            each=per_image(self._pace(config), wiring.encoder_spec(config, device_of(config, figures)), figures),
            cluster=cluster,
            cores=cores_of(cluster, cores_per_node) if cluster else None,
        )

    def _pace(self, config: Config) -> DecodingPace:
        if self.sample is None:
            return IMAGINED
        settings = wiring.decode_settings(config, self.shape.grid, None)
        drawing = Drawing(max_side=config.explain.max_side, format=config.explain.format)
        found = decoding_pace(self.sample, settings, self.shape.image_size, drawing)
        return found if found.images else IMAGINED

    @property
    def broken(self) -> int:
        """Count the images that the catalog cannot use."""
        return self.images - sum(n for _, n in self.sizes)


def actor_count(config: Config, actors: int | None) -> int:
    """Choose the number of scoring actors: ``actors``, else ``resources.score_actors``, else 1.

    Raises:
        SettingsError: below 1.
    """
    if actors is not None and actors < 1:
        raise SettingsError(bad_value("--actors", actors, "at least 1"))
    return actors or config.resources.score_actors or 1


def device_of(config: Config, figures: DeviceFigures | None) -> str:
    """Choose the device, ``cpu`` or ``cuda``: the settings', else that of the figures."""
    if config.encoder.device != "auto":
        return config.encoder.device
    return figures.device if figures else "cpu"


def limits_on(config: Config, actors: int, figures: DeviceFigures | None) -> Limits:
    """Limit the plan; ``auto`` is the arithmetic in which these figures are fastest, else that of this machine."""
    device = device_of(config, figures)
    probes = [figures.speeds] if figures and device == figures.device == "cpu" else ()
    threads = config.resources.cpus_per_actor or (figures.threads if figures else CPUS_PER_ACTOR)
    return wiring.limits(with_precision(config, device, probes), actors, device, threads)


def survey_archive(config: Config, figures: DeviceFigures | None) -> Survey:
    """Count the readable images of every group.

    Raises:
        PatcheadError: the archive cannot be listed, or the encoder is unknown.
    """
    config = wiring.absolute(config)
    shape = describe(wiring.encoder_spec(config, device_of(config, figures)))
    found = catalog(wiring.catalog_request(config))
    readable = found.manifest.filter(found.manifest["status"].is_null())
    rows = readable.select(["group_id"]).sort_by("group_id")
    edges = run_boundaries(rows, ["group_id"])
    sizes = [(rows["group_id"][a].as_py(), b - a) for a, b in pairwise(edges)]
    return Survey(
        sizes=sizes,
        images=found.manifest.num_rows,
        left_out=found.left_out,
        unreadable=found.unreadable,
        shape=shape,
        references=_references(config, [name for name, _ in sizes]),
        sample=evenly_sampled(readable),
    )


def _references(config: Config, groups: list[str]) -> dict[str, PromptCounts] | None:
    if accepted_references(config):
        accepted = counts(config, config.lake.uri, wiring.storage(config), groups)
        return {name: PromptCounts(count, 0) for name, count in accepted.items()}
    if not wiring.few_shot(config):
        return None
    request = wiring.prompt_request(config)
    found = list_prompts(request, groups)
    found.require(groups, request.catalog.uri)
    return found.counts(groups)
