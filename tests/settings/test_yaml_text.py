"""A settings file that is hostile or broken ends in one clear line, before it takes memory or time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from patchead.errors import SettingsError
from patchead.settings.load import load_config
from patchead.settings.yaml_text import parse_yaml

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
MERGES = "a0: &a0 {k0: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 12)
)
HOSTILE = {
    "aliases of aliases": LAUGHS,
    "merged aliases": MERGES,
    "an alias inside itself": "a: &a [*a]",
    "deep lists": "[" * 50_000,
    "deep closed lists": "[" * 2000 + "]" * 2000,
    "deep mappings": "{a: " * 5000,
    "deep blocks": "- " * 5000 + "x",
    "keys of keys": "? " * 5000 + "x",
    "many values": "[" + "1," * 200_000 + "]",
    "a long file": "x" * 2_000_000,
    "no date": "archive: {night: 2026-13-45}",
    "a huge whole number": "archive: {limit: " + "9" * 5000 + "}",
    "a tag on a wrong value": "archive: {limit: !!int many}",
    "a bool that is none": "a: !!bool perhaps",
    "a timestamp that is none": "a: !!timestamp yesterday",
    "a list as a key": "? [a, b]\n: c",
    "an object": "a: !!python/object/apply:os.system ['true']",
    "control characters": "a: \x00",
    "two documents": "a: 1\n---\nb: 2",
    "an unknown alias": "a: *b",
    "binary that is none": "a: !!binary 'x'",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_ends_in_one_short_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(HOSTILE[name])
    with pytest.raises(SettingsError) as caught:
        load_config(path)
    text = str(caught.value)
    assert str(path) in text
    assert len(text.splitlines()) == 1
    assert len(text) < 700 + len(str(path))


@pytest.mark.slow
def test_the_command_prints_one_line_in_little_memory(tmp_path: Path) -> None:
    """The whole process: at 1 GB of address space above what it maps at its start, ten billion values do not fit."""
    path = tmp_path / "settings.yaml"
    path.write_text(LAUGHS)
    code = (
        "import resource, sys; from patchead.cli import main; import patchead.forecast.plan_report\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + 2**30, size + 2**30))\n"
        f"sys.argv = ['patchead', 'plan', '--config', {str(path)!r}]\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: the settings file")
    assert len(done.stdout + done.stderr) < 1000


def test_a_broken_file_with_a_key_in_it_does_not_print_the_key(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    for text in (
        "lake: {uri: s3://K:Zx9Secret@b\n",
        "s3://K:Zx9Secret@b",
        "[s3://K:Zx9Secret@b]",
        "? s3://K:Zx9Secret@b",
    ):
        path.write_text(text)
        with pytest.raises(SettingsError) as caught:
            load_config(path)
        assert "Zx9" not in str(caught.value)


def test_aliases_and_merged_sections_of_honest_files_work() -> None:
    text = b"base: &base {a: 1, b: [x, y]}\none: *base\ntwo: {<<: *base, a: 2}\n"
    found = parse_yaml(text, "this")
    assert found["one"] == {"a": 1, "b": ["x", "y"]}
    assert found["two"] == {"a": 2, "b": ["x", "y"]}
