"""Tuned words as one safetensors file, which takes the place of the text bank."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from fsspec.implementations.local import LocalFileSystem
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from patchead.encoders.cache import cached_copy
from patchead.encoders.clip_towers import ClipTowers
from patchead.encoders.weight_file import check_bounds
from patchead.errors import SettingsError, WeightsError, bad_argument
from patchead.files import Folder
from patchead.naming.control_words import control_phrases
from patchead.naming.text_bank import TextBank, make_text_bank
from patchead.naming.words import Words
from patchead.storage import Storage, explained
from patchead.tuning.train import Tuned

VERSION = 1
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class TunedWords:
    """Hold what a file of tuned words says: the words, and the encoder that alone may use them."""

    words: Words
    encoder_id: str
    facts: Mapping[str, Any]
    """How they came about: stages, average precision, phrases."""


def tuned_words(towers: ClipTowers, keywords: Mapping[str, Sequence[str]], tuned: Tuned) -> TunedWords:
    """Put tuned vectors in the place of those of the text bank; nuisances and single phrases stay the bank's."""
    plain = make_text_bank(keywords, towers.encode_text, controls=control_phrases())
    found = tuned.prompts()
    bank = replace(
        plain,
        type_vectors=found.types.detach().double().cpu().numpy(),
        normal_vector=found.normal.detach().double().cpu().numpy(),
    )
    adapters = None if tuned.adapters is None else tuned.adapters.float().cpu().numpy()
    facts = {"precision": tuned.precision, "kept": list(tuned.kept)}
    return TunedWords(Words(bank, towers.taps, adapters), towers.encoder_id, facts)


def write_words(uri: str, storage: Storage, tuned: TunedWords) -> None:
    """Write tuned words as one file.

    Raises:
        SettingsError: ``uri`` does not end in .safetensors.
        LakeError: it cannot be written.
    """
    folder, _, name = uri.rpartition("/")
    if not name.endswith(SUFFIX):
        raise SettingsError(bad_argument("words", uri, f"a file that ends in {SUFFIX}"))
    bank, adapters = tuned.words.bank, tuned.words.adapters
    arrays = {
        "types": bank.type_vectors,
        "normal": bank.normal_vector,
        "nuisances": bank.nuisance_vectors,
        "controls": bank.control_vectors,
        "phrases": np.concatenate(bank.phrase_vectors),
    }
    arrays |= {} if adapters is None else {"adapters": adapters}
    told = {
        "version": VERSION,
        "encoder_id": tuned.encoder_id,
        "types": dict(zip(bank.types, bank.phrases, strict=True)),
        "nuisances": bank.nuisances,
        "taps": tuned.words.taps,
        "facts": dict(tuned.facts),
    }
    data = save({key: np.ascontiguousarray(value) for key, value in arrays.items()}, {"patchead": json.dumps(told)})
    Folder(folder or ".", storage).write(name, lambda sink: sink.write(data))


def read_words(uri: str, storage: Storage) -> TunedWords:
    """Read a file of tuned words; a remote one is copied to the local cache once.

    Raises:
        SettingsError: ``uri`` does not end in .safetensors.
        WeightsError: the file is missing, damaged, or holds something else.
    """
    if not uri.endswith(SUFFIX):
        raise SettingsError(
            bad_argument("words", uri, f"a file that ends in {SUFFIX}, as jobs/tune_names.py writes it")
        )
    with explained("read the tuned words", uri, WeightsError):
        filesystem, remote = storage.filesystem(uri)
        path = Path(remote) if isinstance(filesystem, LocalFileSystem) else cached_copy(filesystem, remote, uri)
        if not path.is_file():
            raise FileNotFoundError(path)
    try:
        check_bounds(path, uri)
        with safe_open(path, "numpy") as file:
            told = json.loads((file.metadata() or {}).get("patchead", "null"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, ValueError, OSError) as exc:
        raise WeightsError(f"the tuned words {uri} cannot be read: {exc}. Run jobs/tune_names.py again.") from exc
    if not isinstance(told, dict) or told.get("version") != VERSION:
        raise WeightsError(
            f"{uri} holds no tuned words of version {VERSION}. Give the file that jobs/tune_names.py wrote, or "
            "leave naming.words out and name types by naming.keywords."
        )
    return _checked(uri, told, arrays)


def require_same_encoder(uri: str, tuned: TunedWords, towers: ClipTowers) -> None:
    """Refuse words that were tuned on other towers.

    Raises:
        SettingsError: they were.
    """
    if tuned.encoder_id != towers.encoder_id:
        raise SettingsError(
            bad_argument(
                "words",
                uri,
                f"words tuned on the encoder that names, {towers.encoder_id}",
                f"These were tuned on {tuned.encoder_id}: set naming.encoder and naming.weights to that one, or run "
                "jobs/tune_names.py with this one.",
            )
        )


def _checked(uri: str, told: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> TunedWords:
    types, taps = told["types"], tuple(told["taps"])
    counts = [len(phrases) for phrases in types.values()]
    width = arrays["normal"].shape[-1] if "normal" in arrays else 0
    wanted = {
        "types": (len(types), width),
        "normal": (width,),
        "nuisances": (len(told["nuisances"]), width),
        "controls": (len(arrays["controls"]) if "controls" in arrays else 0, width),
        "phrases": (sum(counts), width),
    }
    wanted |= {"adapters": (len(taps), width, width)} if "adapters" in arrays else {}
    shapes = {name: array.shape for name, array in arrays.items()}
    if shapes != wanted or not all(np.isfinite(array).all() for array in arrays.values()):
        raise WeightsError(f"the tuned words {uri} are damaged: {shapes} where {wanted} was written.")
    bank = TextBank(
        types=tuple(types),
        type_vectors=arrays["types"],
        normal_vector=arrays["normal"],
        nuisances=tuple(told["nuisances"]),
        nuisance_vectors=arrays["nuisances"],
        control_vectors=arrays["controls"],
        phrases=tuple(tuple(phrases) for phrases in types.values()),
        phrase_vectors=tuple(np.split(arrays["phrases"], np.cumsum(counts)[:-1])),
    )
    return TunedWords(Words(bank, taps, arrays.get("adapters")), told["encoder_id"], told["facts"])
