"""Settings of where a run reads, writes and computes, and of the run itself; none of them changes a score."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from patchead.settings.section import Days, Positive, Price, Seconds, Section, Share


class LakeConfig(Section):
    """Where embeddings, tables and heatmaps go."""

    uri: str = Field(min_length=1)
    """Folder or fsspec URL, e.g. ./lake or s3://bucket/lake."""
    images_per_file: Positive = 64
    """Images per embedding file, which is also the unit of resumption."""


class RetentionConfig(Section):
    """How long `patchead gc` keeps what a lake no longer needs."""

    embeddings_nights: Positive = 30
    """Embeddings of images of this many newest published nights are kept; what accepted runs use always is."""
    staged_days: Days = 7.0
    """Staged groups of a published run."""
    unfinished_days: Days = 30.0
    """The folder of a run that was not published and that nobody goes on with, and embeddings of no kept night."""
    replaced_days: Days = 7.0
    """Files of the tables, and heatmaps, that a later run has replaced."""
    set_aside_days: Days = 30.0
    """Damaged files that were set aside."""


class StorageConfig(Section):
    """Object storage. Keys come from the environment or an instance role, never from here: this is recorded."""

    endpoint_url: str | None = None
    """S3 endpoint other than AWS, e.g. http://seaweedfs:8333; default: AWS_ENDPOINT_URL, then AWS."""
    region: str | None = None
    """S3 region; default: AWS_REGION, then us-east-1."""
    anonymous: bool = False
    """Use no keys: a public bucket as archive, with the lake on this machine or elsewhere without keys."""
    attempts: Positive = 4
    """Times that a request to S3, or a body that was cut, is tried; pauses grow between them, by chance."""
    deadline_seconds: Seconds = 300.0
    """Seconds that one operation on S3 takes at most, with all its attempts and pauses."""


class ResourcesConfig(Section):
    """What to take from the cluster."""

    expect_gpus: Positive | None = None
    """GPUs that the cluster will have: the run waits for them, and fails rather than start on CPUs without them."""
    wait_minutes: Annotated[float, Field(ge=0, le=100_000)] = 20.0
    """How long to wait for expect_gpus, for a node with room where all were lost, and for room for Ray's own files."""
    gpus_per_actor: Annotated[float, Field(ge=0, le=1024)] | None = None
    """GPUs per actor, a fraction or a whole number; default: 1 when the cluster has GPUs, else 0, and an encoder for
    every 4 CPUs of a GPU, 4 at most, shares it."""
    cpus_per_actor: Positive | None = None
    """CPUs, and threads, of an actor on a cluster without GPUs; default: 4, or what the largest node has."""
    embed_actors: Positive | None = None
    """Embedding actors; default: as many as fit, and more where nodes join."""
    score_actors: Positive | None = None
    """Scoring actors; default: as many as fit, and more where nodes join."""
    overlap: bool = False
    """Score each group as soon as its images are embedded, while the next are being embedded; not with --local."""
    local_cpus: Positive | None = None
    """CPUs of the Ray that is started here when no cluster is given (RAY_ADDRESS); default: all of this machine."""

    @field_validator("gpus_per_actor")
    @classmethod
    def _whole_above_one(cls, gpus: float | None) -> float | None:
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise ValueError("must be a fraction below 1 or a whole number")
        return gpus


class ReportConfig(Section):
    """How much of a night is on the page of `patchead report`."""

    images: Positive = 5000
    """Images on the page, the worst; each has a thumbnail."""
    pictures: Annotated[int, Field(ge=0)] = 100
    """Of these, the worst that have a larger picture of the original, and their heatmap."""
    compared: Annotated[int, Field(ge=0)] = 20
    """Of these, the worst that show the reference patches they were compared with, from embeddings still there."""


NIGHTLY = "nightly"
"""Before the date in the run id of a night that nobody has named, as the cluster's nightly job has it: what it has
published is not done again."""


class RunConfig(Section):
    """This run."""

    run_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    """Name of the run; the same name published again is a no-op. Default: time and a random suffix."""
    lane: str = Field(default="main", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Where its results stand: another name than main keeps a second set of results of the same nights for comparison;
    a run replaces results of its own lane alone."""
    price_per_gpu_hour: Price | None = None
    """What an hour of a GPU costs, in any currency: `runs.cost` is told with it."""
    price_per_cpu_hour: Price | None = None
    """What an hour of a CPU core costs."""
    max_unread_fraction: Share = 0.0
    """Publish only if the storage kept at most this fraction of the images back, which was tried twice."""
    max_failed_fraction: Share = 0.01
    """Publish only if at most this fraction of the images failed."""
    max_failed_groups: Share = 0.5
    """Publish only if at most this fraction of the groups could not be scored or explained: rows say so, and
    `--retry-failed` tries them again."""
    report: bool = False
    """Write the page of `patchead report` into the lake, below reports/, once the night is published."""
    grace_seconds: Seconds = 25.0
    """Seconds from SIGTERM (a spot machine that is taken away) to the end of the process, with code 5."""
    progress_seconds: Seconds = 30.0
    """Seconds between two lines that say where a stage is, where the output is no terminal."""
    log_level: Literal["off", "debug", "info", "warning", "error"] = "off"
    """Write one JSON object a line to stderr: stages, groups (info) and units (debug) as they end, what went wrong."""
    max_image_seconds: Seconds = 120.0
    """On Ray: an image that takes longer to decode fails. Its process is ended for it, three times before that."""

    @field_validator("log_level", mode="before")
    @classmethod
    def _off_is_a_word(cls, level: Any) -> Any:
        return "off" if level is False else level  # YAML's off
