"""Whether the scores of two runs may be compared: the same encoder, settings that decide a score, and prompts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from patchead.hashing import text_digest
from patchead.lake.accepted import Accepted
from patchead.settings.identity import Decides, identity
from patchead.settings.model import Config
from patchead.settings.modes import few_shot

# Whether there is a score, whose embeddings it is made of, whether a repeated defect hides, which images are a panel,
# and another score beside it: a good image's score means the same.
_NOT_COMPARED = (
    *("scoring.min_batch", "scoring.references", "scoring.repeats"),
    *("scoring.seed", "scoring.subspace"),
)
_PROMPTS = ("uri", "template", "manifest")
_CONTENTS = "prompts.contents"  # no setting: known of a group once its prompts are read


def deciding(config: Config) -> dict[str, Any]:
    """Collect the settings that decide a score, by dotted name, as plain JSON values, but not the arithmetic.

    The encoder's own are among them, to be named where two encoders differ; whether they do, its id says.
    """
    found = {key: value for key, value in identity(config, Decides.SCORES).items() if key not in _NOT_COMPARED}
    if few_shot(config):  # with other prompts it is another score
        found |= {f"prompts.{name}": getattr(config.prompts, name) for name in _PROMPTS}
    return found


def prompt_contents(content_hashes: Iterable[str]) -> dict[str, Any]:
    """Count the different photos among a group's prompts and hash their contents, whatever their names and order."""
    photos = sorted(set(content_hashes))
    return {"photos": len(photos), "digest": text_digest(" ".join(photos))}


def kept_settings(settings: Mapping[str, Any], contents: Mapping[str, Any] | None) -> str:
    """Write what an accepted group keeps to be compared by, as JSON.

    Args:
        settings: see `deciding`.
        contents: see `prompt_contents`; None without prompts, and where the run did not record it.
    """
    return json.dumps({**settings, **({} if contents is None else {_CONTENTS: contents})}, sort_keys=True)


def other_prompts(accepted: Accepted, contents: Mapping[str, Any] | None) -> str | None:
    """Say how the prompts of a night differ from those of accepted scores; None where they do not.

    Args:
        accepted: what it would be compared with; what an earlier version accepted does not say what its prompts were.
        contents: of the night, see `prompt_contents`.
    """
    there = json.loads(accepted.values["settings_json"]).get(_CONTENTS)
    if there is None or contents is None or there == contents:
        return None
    sides = [f"(contents {of['digest'][:8]})" for of in (there, contents)]
    return f"{there['photos']} prompts {sides[0]} there, {contents['photos']} {sides[1]} here"


def difference(config: Config, encoder_id: str, accepted: Accepted) -> str | None:
    """Say why scores of a run cannot be compared with accepted ones, naming both sides; None where they can.

    Args:
        config, encoder_id: of the run.
        accepted: what it would be compared with.
    """
    there = json.loads(accepted.values["settings_json"])
    return unlike(there, accepted.values["encoder_id"], json.loads(json.dumps(deciding(config))), encoder_id)


def unlike(
    there: Mapping[str, Any], encoder_there: str | None, here: Mapping[str, Any], encoder_id: str | None
) -> str | None:
    """Say why scores by `deciding` settings and encoders cannot be compared, naming both sides; None where they can."""
    # What an earlier version kept may have more than is compared.
    keys = [key for key in sorted({*there, *here} - {*_NOT_COMPARED, _CONTENTS}) if there.get(key) != here.get(key)]

    def told(names: list[str]) -> str:
        return ", ".join(f"{key} {_value(there, key)} there, {_value(here, key)} here" for key in names)

    if encoder_there != encoder_id:
        return f"encoder {encoder_there} there, {encoder_id} here{f' ({told(keys)})' if keys else ''}"
    # An encoder's settings may be written in two ways, and its weights lie in two places: its id tells.
    return told([key for key in keys if not key.startswith("encoder.")]) or None


def _value(settings: Mapping[str, Any], key: str) -> str:
    return json.dumps(settings[key]) if key in settings else "not in use"
