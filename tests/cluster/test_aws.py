"""cluster/aws.yaml by the checks that `ray up` makes before it talks to AWS, and by what the job needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config


@pytest.fixture
def config(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / "cluster/aws.yaml").read_text(encoding="utf-8"))


def test_ray_accepts_it(config: dict[str, Any]) -> None:
    validate_config(prepare_config(config))


def test_ray_refuses_what_is_wrong(config: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config({**config, "idle_timeout_minute": 5}))
    with pytest.raises(ValueError, match="max_workers"):
        validate_config(prepare_config({**config, "max_workers": 1}))


def test_a_fixed_number_of_gpu_workers_beside_a_head_without_work(config: dict[str, Any]) -> None:
    types = prepare_config(config)["available_node_types"]
    assert set(types) == {"head", "gpu"}
    assert config["head_node_type"] == "head"
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["head"]["max_workers"] == 0
    assert types["gpu"]["resources"]["GPU"] == 1
    assert types["gpu"]["min_workers"] == types["gpu"]["max_workers"] == config["max_workers"] > 1
    assert config["idle_timeout_minutes"] > 0
    assert config["provider"]["cache_stopped_nodes"] is False


def test_nodes_reach_s3_by_their_profile_and_workers_by_a_lesser_one(config: dict[str, Any]) -> None:
    profiles = {
        name: node["node_config"]["IamInstanceProfile"] for name, node in config["available_node_types"].items()
    }
    assert profiles == {"head": {"Name": "patchead-head"}, "gpu": {"Name": "patchead-worker"}}
    assert "AWS_SECRET_ACCESS_KEY" not in str(config)


def test_nobody_else_gets_in(config: dict[str, Any]) -> None:
    (rule,) = config["provider"]["security_group"]["IpPermissions"]
    assert (rule["FromPort"], rule["ToPort"]) == (22, 22)
    assert rule["IpRanges"] != [{"CidrIp": "0.0.0.0/0"}]
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("--dashboard-host=127.0.0.1" in command for command in config["head_start_ray_commands"])


def test_what_is_installed_is_mounted(config: dict[str, Any], root: Path) -> None:
    mounts = {remote: local for remote, local in config["file_mounts"].items() if not local.startswith("~")}
    assert {Path(remote).name for remote in mounts} == {
        *("pyproject.toml", "constraints.txt", "README.md", "patchead", "jobs")
    }
    for remote, local in mounts.items():
        assert remote == f"/home/ray/patchead/{local}"
        assert (root / local).exists(), local
    pip = [
        command for command in [*config["setup_commands"], *config["head_setup_commands"]] if "pip install" in command
    ]
    assert len(pip) == 2
    assert all("-c /home/ray/patchead/constraints.txt" in command for command in pip)


def test_the_policy_reads_the_archive_and_writes_the_lake_and_nothing_else(root: Path) -> None:
    policy = json.loads((root / "cluster/iam-policy.json").read_text(encoding="utf-8"))
    allowed: dict[str, set[str]] = {}
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        actions = statement["Action"]
        assert "*" not in str(actions)
        bucket = statement["Resource"].removeprefix("arn:aws:s3:::").split("/")[0]
        allowed.setdefault(bucket, set()).update([actions] if isinstance(actions, str) else actions)
        if actions == "s3:ListBucket":
            assert statement["Condition"]["StringLike"]["s3:prefix"]
        else:
            assert statement["Resource"].endswith("-PREFIX/*")
    assert allowed["ARCHIVE-BUCKET"] == {"s3:ListBucket", "s3:GetObject"}
    assert {"s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"} <= allowed["LAKE-BUCKET"]
