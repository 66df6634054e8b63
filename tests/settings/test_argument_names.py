"""Functions name their own arguments; who read them from settings, or took them in a notebook, gives them his names."""

from __future__ import annotations

import ast
import io
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import patchead
from patchead.archive.decode import decode, fit
from patchead.encoders import EncoderSpec, build
from patchead.encoders.choice import image_size_of, layers_of
from patchead.encoders.registry import resolve
from patchead.encoders.timm_encoder import architecture
from patchead.errors import PatcheadError, PlanError, SettingsError, arguments_named
from patchead.forecast.plan_report import print_plan
from patchead.nightly.run import run_night
from patchead.plan.group_plan import Limits, make_plan
from patchead.runtime.inline_executor import InlineExecutor
from patchead.samples.align import Alignment
from patchead.samples.mask import ForegroundMask
from patchead.scoring.aggregate import Aggregation, image_scores, neighbours
from patchead.scoring.leave_one_out import score_group
from patchead.scoring.nearest_mean import NearestMean
from patchead.scoring.panel import reference_panel
from patchead.scoring.precision import dtype_of
from patchead.scoring.precision_probe import warning
from patchead.scoring.verdict import VerdictSettings, judge
from patchead.settings.argument_names import KEYS, in_settings, named_as_settings
from patchead.settings.load import iter_fields, load_config
from tests.helpers.sample_files import png
from tests.helpers.sample_photos import photos

PACKAGE = Path(patchead.__file__).parent
SETTINGS = {key for key, _ in iter_fields()}
NAMING_ARGUMENTS = [
    *(
        module
        for room in ("scoring", "samples", "maps", "plan", "encoders")
        for module in (PACKAGE / room).glob("*.py")
    ),
    *(PACKAGE / "archive" / f"{name}.py" for name in ("decode", "pixels", "damage", "parquet_pages")),
    PACKAGE / "nightly" / "decode.py",
    PACKAGE / "runtime" / "in_hand.py",
]


def texts(module: Path) -> Iterator[str]:
    """Every string of a module that is no docstring."""
    tree = ast.parse(module.read_text())
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            yield node.value


@pytest.mark.parametrize("module", NAMING_ARGUMENTS, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_no_function_names_a_setting(module: Path) -> None:
    for text in texts(module):
        named = [key for key in SETTINGS if "." in key and re.search(rf"(?<![\w.]){re.escape(key)}(?!\w)", text)]
        assert not named, f"{text!r} names {named}"


def test_every_argument_that_an_error_names_has_a_key_and_every_key_is_a_setting() -> None:
    named = {name for module in NAMING_ARGUMENTS for text in texts(module) for name in re.findall(r"`(\w+)`", text)}
    for module in NAMING_ARGUMENTS:
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("bad_argument", "argument"):
                assert isinstance(node.args[0], ast.Constant), f"{module}:{node.lineno}"
                named.add(node.args[0].value)
    assert named == set(KEYS)
    assert set(KEYS.values()) <= SETTINGS


LIMITS = {"precision": "fp32", "fraction": 0.3, "min_batch": 5, "max_references": None, "actors": 1}
VECTORS = np.ones((6, 4, 8), np.float16)


def plan(images: int, **limits: Any) -> object:
    some: dict[str, Any] = {"memory_bytes": 10**9, "schedule": "auto", "max_group_size": 10, **LIMITS, **limits}
    return make_plan([("g", images)], 4, 8, Limits(**some))


CASES: list[tuple[Callable[[], object], str]] = [
    (lambda: Aggregation(aggregate="middle"), "aggregate"),  # type: ignore[arg-type]
    (lambda: Aggregation(fraction=0), "fraction"),
    (lambda: neighbours(3, 2.0), "fraction"),
    (lambda: Aggregation(image_top_fraction=2), "image_top_fraction"),
    (lambda: image_scores(np.ones((1, 4)), -1), "top_fraction"),
    (lambda: NearestMean(np.array([1]), 4, "middle", "cpu", 1), "aggregate"),
    (lambda: reference_panel(["a"], 0, 0), "size"),
    (lambda: dtype_of("fp64"), "precision"),
    (lambda: score_group(VECTORS, np.arange(6), aggregation=Aggregation(), memory_bytes=900), "memory_bytes"),
    (lambda: plan(6, memory_bytes=10, schedule="symmetric"), "schedule"),
    (lambda: plan(6, schedule="quick"), "schedule"),
    (lambda: plan(11), "max_group_size"),
    (lambda: Alignment(ratio=2), "ratio"),
    (lambda: judge(np.ones(1), VerdictSettings(verdict="reference"), reference=np.ones(9)), "alpha"),
    (lambda: judge(np.ones(1), VerdictSettings(verdict="reference", threshold_z=3.0)), "threshold_z"),
    (lambda: Alignment(min_inliers=1), "min_inliers"),
    (lambda: Alignment(max_scale=0.5), "max_scale"),
    (lambda: Alignment(max_scale=math.nan), "max_scale"),
    (lambda: ForegroundMask(threshold=2), "threshold"),
    (lambda: ForegroundMask(background=-1), "background"),
    (lambda: fit(photos(1, 8)[0], 4, "stretch"), "mode"),
    (lambda: decode(png(), max_pixels=3), "max_pixels"),
    (lambda: resolve("dinov9"), "name"),
    (lambda: build(EncoderSpec("timm/test_vit", "random", 161)), "image_size"),
    (lambda: build(EncoderSpec("timm/test_vit", "random", 160, layers=(9,))), "layers"),
    (lambda: build(EncoderSpec("timm/test_vit", "no such", 160)), "weights"),
    (lambda: build(EncoderSpec("timm/test_vit", "random", 160, dtype="fp8")), "dtype"),
    (lambda: build(EncoderSpec("timm/test_vit", "random", 160, device="tpu")), "device"),
    (lambda: layers_of("all", architecture(EncoderSpec("timm/test_vit", "random", 160))), "layers"),
    (lambda: image_size_of("large", (), architecture(EncoderSpec("timm/test_vit", "random", 160))), "image_size"),
]


@pytest.mark.parametrize(("call", "argument"), CASES, ids=[f"{i}-{name}" for i, (_, name) in enumerate(CASES)])
def test_a_function_names_its_argument_and_the_settings_their_key(call: Callable[[], object], argument: str) -> None:
    with pytest.raises(PatcheadError, match=rf"`{argument}`") as plain:
        call()
    with pytest.raises(type(plain.value)) as keyed, named_as_settings():
        call()
    expected = re.sub(r"`(\w+)`", lambda found: KEYS[found[1]], str(plain.value))
    assert KEYS[argument] in expected
    assert str(keyed.value) == expected
    assert keyed.value.exit_code == plain.value.exit_code


def test_a_text_that_is_no_error_can_be_said_in_settings_too() -> None:
    text = warning("int8", [{"fp32": 1.0, "int8": 0.25}], "node 1")
    assert text == "`precision` int8 runs at 0.25 times the speed of fp32 on node 1; set `precision` to auto or fp32."
    assert in_settings(text).startswith("scoring.precision int8 runs at 0.25")
    assert in_settings("`patchead score` knows no `other`") == "`patchead score` knows no `other`"


def test_other_names_and_other_errors_stay() -> None:
    with (
        pytest.raises(SettingsError, match=r"^--precision must be one of"),
        arguments_named({"precision": "--precision"}),
    ):
        dtype_of("fp64")
    with pytest.raises(KeyError, match="`precision`"), named_as_settings():
        raise KeyError("`precision`")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    for i in range(6):
        path = tmp_path / "archive" / "night=2026-11-21" / "product=screw" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(i))
    return tmp_path / "archive"


def settings_for(archive: Path, **more: Any) -> Any:
    given = {"archive.uri": str(archive), "lake.uri": str(archive.parent / "lake"), "encoder.name": "timm/test_vit"}
    return load_config(None, given={**given, "encoder.weights": "random", "encoder.image_size": 32, **more})


REFUSED: list[tuple[dict[str, Any], type[PatcheadError], str]] = [
    (
        {"scoring.memory_gb": 1e-6},
        PlanError,
        r"^scoring\.memory_gb \(1e-06 GB\) does not hold .* Set it to .* GB or more",
    ),
    (
        {"scoring.max_group_size": 5},
        PlanError,
        r"more than scoring\.max_group_size=5; .*archive\.group_by, or raise scor",
    ),
    ({"encoder.layers": [7]}, SettingsError, r"^encoder\.layers must be blocks of timm/test_vit, 1 to 6; got \[7\]"),
]


@pytest.mark.parametrize(("more", "error", "text"), REFUSED, ids=["memory", "group size", "layers"])
def test_a_job_and_its_plan_name_the_setting(archive: Path, more: dict[str, Any], error: type, text: str) -> None:
    config, console = settings_for(archive, **more), Console(file=io.StringIO())
    with pytest.raises(error, match=text):
        print_plan(config, console)
    with pytest.raises(error, match=text):
        run_night(config, console, InlineExecutor())
    for record in (archive.parent / "lake").glob("runs/*/run.json"):
        assert "`" not in record.read_text()


NOTEBOOK: list[tuple[dict[str, Any], str]] = [
    ({"memory_gb": -1}, r"^memory_gb: must be greater than 0"),
    ({"memory_gb": 1e-6}, r"^memory_gb \(1e-06 GB\) does not hold one image"),
    ({"encoder": "timm/no_such"}, r"^encoder must be a model of timm; got 'timm/no_such'"),
    ({"image_size": 33}, r"^image_size must be a multiple of timm/test_vit's patch size 16; got 33"),
    ({"layers": (7,)}, r"^layers must be blocks of timm/test_vit, 1 to 6"),
    ({"layers": "first"}, r"^layers: must be auto, last, quarters"),
    ({"fit": "stretch"}, r"^fit: must be 'squash', 'crop' or 'pad'"),
    ({"weights": "package:none"}, r"^weights must be "),
    ({"precision": "fp64"}, r"^precision: must be 'auto'"),
    ({"device": "tpu"}, r"^device: must be 'auto', 'cpu' or 'cuda'"),
]


@pytest.mark.parametrize(("arguments", "text"), NOTEBOOK, ids=[str(arguments) for arguments, _ in NOTEBOOK])
def test_a_notebook_names_the_argument_of_score(arguments: dict[str, Any], text: str) -> None:
    usual: dict[str, Any] = {"encoder": "timm/test_vit", "weights": "random", "image_size": 32}
    with pytest.raises(PatcheadError, match=text) as refused:
        patchead.score([*photos(5, 32)], **(usual | arguments))
    assert not [key for key in SETTINGS if "." in key and key in str(refused.value)]
