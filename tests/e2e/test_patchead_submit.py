"""`patchead submit`, and `ray job submit` as the README has it, to clusters that want a token."""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from patchead.commands.submit import _metadata, _packed, _with_id
from patchead.errors import SettingsError
from patchead.nightly.run_record import RunRecord
from patchead.settings.load import load_config
from tests.helpers.command import patchead
from tests.helpers.e2e_tools import ROOT, SMALL_OPTIONS, by_id, good_images, png, spoiled, write_group
from tests.helpers.ray_head import RAY, ray_head, ray_worker
from tests.helpers.s3_server import S3Server

NIGHT = "2026-11-21"
CODE = "import sys; from patchead.cli import main; sys.argv[0] = 'patchead'; main()"


def test_what_travels_is_the_checked_settings_and_the_package_where_it_is_asked_for(tmp_path: Path) -> None:
    given = {"archive.uri": "s3://a/b", "lake.uri": "s3://c/d", "archive.night": NIGHT, "scoring.fraction": 0.2}
    settings = _with_id(load_config(None, given=given))
    assert settings.run.run_id == f"nightly-{NIGHT}"
    folder = Path(_packed(tmp_path, settings, code=True))
    assert load_config(folder / "settings.yaml") == settings
    assert (folder / "patchead/__main__.py").is_file()
    assert not list(folder.rglob("__pycache__"))
    assert _metadata(settings)["night"] == NIGHT
    assert all(isinstance(value, str) for value in _metadata(settings).values())


def test_what_cannot_be_a_job_is_refused_before_anything_is_reached(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--run-id, or --night"):
        _with_id(load_config(None, given={"archive.uri": "s3://a/b", "lake.uri": "s3://c/d"}))
    words = ("submit", "--address", "http://127.0.0.1:9", "--night", NIGHT, "--archive")
    ended = patchead(*words, "./here", "--lake", "s3://c/d")
    assert (ended.code, "archive.uri" in ended.err) == (2, True)
    ended = patchead(*words, "s3://a/b", "--lake", "s3://c/d", "--entrypoint-resource", "head")
    assert (ended.code, "NAME=AMOUNT" in ended.err) == (2, True)
    ended = patchead(*words, "s3://a/b", "--lake", "s3://c/d", "--token-file", str(tmp_path / "none"))
    assert (ended.code, "get-auth-token" in ended.err) == (2, True)


@pytest.mark.slow  # two nodes, S3, a killed worker; `ray job submit` to two nodes is in test_submit.py
def test_on_two_nodes_with_s3_and_a_killed_worker(
    s3: S3Server, tmp_path: Path, score_night: Callable[..., RunRecord]
) -> None:
    for number, product in enumerate(("screw", "nut", "bolt", "pin")):
        images = good_images(30, 100 * number) | {"worst.png": png(spoiled(900 + number))}
        write_group(tmp_path / "archive", NIGHT, product, images)
    bucket = s3.bucket()
    for path in (tmp_path / "archive").rglob("*.png"):
        key = f"archive/{path.relative_to(tmp_path / 'archive')}"
        s3.client.put_object(Bucket=bucket.removeprefix("s3://"), Key=key, Body=path.read_bytes())
    score_night(tmp_path / "archive", tmp_path / "lake")
    expected = {name: row["score"] for name, row in by_id(tmp_path / "lake").items()}
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    lake = f"{bucket}/lake"
    command = [sys.executable, "-c", CODE, "submit", *SMALL_OPTIONS, f"--archive={bucket}/archive", f"--lake={lake}"]
    command += [f"--set=storage.endpoint_url={s3.endpoint}", "--set=lake.images_per_file=2", f"--night={NIGHT}"]
    command += ["--set=resources.cpus_per_actor=1", "--code", "--entrypoint-resource=driver=1", "--follow"]
    with (
        ray_head(tmp_path, num_cpus=2, token=token.read_text(), driver=1, **s3.environment) as head,
        ray_worker(tmp_path, head, num_cpus=2) as worker,
    ):
        command += [f"--address={head.dashboard}", f"--token-file={token}"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment |= {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path / "elsewhere"), "COLUMNS": "200"}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as job:
            listed: dict[str, object] = {}
            while not listed.get("Contents"):
                assert job.poll() is None, job.stdout.read()  # type: ignore[union-attr]
                prefix = {"Bucket": bucket.removeprefix("s3://"), "Prefix": "lake/embeddings/"}
                listed = s3.client.list_objects_v2(**prefix)
                time.sleep(0.05)
            os.killpg(worker.pid, signal.SIGKILL)
            output = job.communicate()[0].decode()
        assert job.returncode == 0, output
        assert f"run nightly-{NIGHT}: submitted" in output
        assert "124 images = 124 scored" in output.replace("\n", " ")
        again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (again.returncode, again.stdout.strip()) == (0, f"run nightly-{NIGHT}: succeeded before")
        job_list = [RAY, "job", "list", "--address", head.dashboard]
        shown = subprocess.run(job_list, env=head.environment, capture_output=True, text=True, check=True).stdout
        assert f"'night': '{NIGHT}'" in shown
        assert s3.secret_key not in shown
    rows = by_id_on_s3(s3, lake)
    assert rows == pytest.approx(expected, abs=1e-6)


def by_id_on_s3(s3: S3Server, lake: str) -> dict[str, float]:
    from tests.helpers.e2e_tools import rows

    options = s3.storage.delta_options(lake)
    return {row["image_id"]: row["score"] for row in rows(lake, options=options)}


@pytest.mark.slow  # a head node of its own
def test_the_readmes_ray_job_submit_works_with_a_token_and_exit_codes_come_back(tmp_path: Path) -> None:
    images = good_images(6) | {"bad.png": b"no image"}
    write_group(tmp_path / "archive", NIGHT, "screw", images)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^ray job submit .*$", readme, re.M)
    assert "export RAY_AUTH_MODE=token" in readme
    words = shlex.split(line, comments=True)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text(secrets.token_hex(32))
    small = [*SMALL_OPTIONS, f"--archive={tmp_path / 'archive'}", f"--lake={tmp_path / 'lake'}"]
    small += ["--set=resources.cpus_per_actor=1", "--set=resources.expect_gpus=null", "--set=encoder.weights=random"]
    with ray_head(tmp_path, num_cpus=2, token=(tmp_path / ".ray/auth_token").read_text()) as head:
        environment = {name: value for name, value in head.environment.items() if not name.startswith("RAY_AUTH")}
        environment["PATH"] = f"{RAY.parent}:{os.environ['PATH']}"
        words[words.index("--address") + 1] = head.dashboard
        refused = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert refused.returncode != 0
        environment["RAY_AUTH_MODE"] = "token"
        done = subprocess.run([*words, *small], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stdout + done.stderr  # the tool's own: 4 is told in its output
        assert "1 of 7 images failed" in done.stdout
        submit = [
            sys.executable,
            "-c",
            CODE,
            "submit",
            *small,
            f"--address={head.dashboard}",
            "--run-id=again",
            "--follow",
        ]
        environment |= {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(submit, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 4, done.stdout + done.stderr
        (tmp_path / "archive").joinpath(f"night={NIGHT}/product=screw/bad.png").unlink()
        done = subprocess.run(submit, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "run again: submitted" in done.stdout
    record = json.loads((tmp_path / "lake/runs/again/run.json").read_text())
    assert (record["state"], record["ok"]) == ("published", 6)
