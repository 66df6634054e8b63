"""A run as a job of a Ray cluster: submitted under its own id, followed, and ended with its own exit code."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchead.errors import PatcheadError, SettingsError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

SUBMITTED, UNDER_WAY, PUBLISHED = "submitted", "under way", "succeeded before"
_PATIENCE_S = 300.0  # how long the dashboard may be away while a job is followed
_STARTING, _STARTING_S = "No available agent", 180.0  # what the job server of a cluster says until its first node is up
_LOST = 1  # exit code of a job that has none of its own: its machine was lost


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """Say what to run: ``entrypoint`` is a shell line, ``submission_id`` the run's id."""

    submission_id: str
    entrypoint: str
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What the dashboard shows of the job: no secrets."""
    num_cpus: float = 0.0
    memory: int = 0
    resources: Mapping[str, float] = field(default_factory=dict)
    """Of the driver; it does little but wait."""


class Jobs:
    """Submit runs to the job server of a cluster."""

    def __init__(self, address: str, token_file: Path | None = None) -> None:
        self._address = address
        _use_token(token_file)
        # Ray reads how it authenticates when it is imported: nothing here may import it before.
        from ray.job_submission import JobSubmissionClient

        with self._told("reach"):
            self._client: JobSubmissionClient = JobSubmissionClient(address)

    def submit(self, request: JobRequest) -> str:
        """Submit a run; one that is under way is left alone, one that failed is tried again under its id.

        A cluster that is just starting is waited for, up to three minutes.

        Returns:
            `SUBMITTED`, `UNDER_WAY`, or `PUBLISHED`: of an id that has succeeded nothing is submitted.

        Raises:
            PatcheadError: the job server cannot be reached, or refuses it.
        """
        from ray.job_submission import JobStatus

        with self._told("submit to"):
            known = {job.submission_id: job.status for job in self._client.list_jobs()}
            state = known.get(request.submission_id)
            if state == JobStatus.SUCCEEDED:
                return PUBLISHED
            if state is not None and not state.is_terminal():
                return UNDER_WAY
            if state is not None:
                self._client.delete_job(request.submission_id)
            self._submit(request)
        return SUBMITTED

    def _submit(self, request: JobRequest) -> None:
        until = time.monotonic() + _STARTING_S
        while True:
            try:
                self._client.submit_job(
                    entrypoint=request.entrypoint,
                    submission_id=request.submission_id,
                    runtime_env=dict(request.runtime_env),
                    metadata=dict(request.metadata),
                    entrypoint_num_cpus=request.num_cpus or None,
                    entrypoint_memory=request.memory or None,
                    entrypoint_resources=dict(request.resources) or None,
                )
            except RuntimeError as exc:
                if _STARTING not in str(exc) or time.monotonic() >= until:
                    raise
                time.sleep(1)
            else:
                return

    def follow(self, submission_id: str, write: Callable[[str], None], every: float = 2.0) -> int:
        """Write what a job prints until it has ended; returns its own exit code.

        The dashboard may be away for up to five minutes meanwhile.

        Raises:
            PatcheadError: the job server cannot be reached any more.
        """
        told, last = 0, time.monotonic()
        while True:
            try:
                with self._told("follow a job of"):
                    info = self._client.get_job_info(submission_id)
                    text = self._client.get_job_logs(submission_id)
                last = time.monotonic()
            except PatcheadError:
                if time.monotonic() - last > _PATIENCE_S:
                    raise
                time.sleep(every)
                continue
            ended = info.status.is_terminal()
            until = len(text) if ended else text.rfind("\n") + 1
            if until > told:
                write(text[told:until].removesuffix("\n"))
                told = until
            if ended:
                code = info.driver_exit_code
                if code is None:
                    write(f"{info.status.value}: {info.message}")
                    return 0 if info.status.value == "SUCCEEDED" else _LOST
                return code if code >= 0 else 128 - code
            time.sleep(every)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, ValueError) as exc:  # requests' errors are OSErrors
            from patchead.runtime.worker_errors import one_line

            why = one_line(str(exc))
            token = " Name a file with the cluster's token: --token-file." if "401" in why or "token" in why else ""
            raise PatcheadError(f"cannot {what} {self._address}: {type(exc).__name__}: {why}{token}") from exc


def _use_token(file: Path | None) -> None:
    """Have Ray's client send the token of a file, or the one that Ray finds itself."""
    if file is not None:
        if not file.is_file():
            raise SettingsError(f"--token-file {file} does not exist. `ray get-auth-token` prints a cluster's token.")
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file.absolute())}
    # `ray start` turns authentication on where there is a token; Ray's client for jobs has to be told.
    elif "RAY_AUTH_TOKEN" in os.environ or (Path.home() / ".ray" / "auth_token").is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
