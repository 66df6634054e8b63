"""Secrets in settings and texts: each way to hide one is refused and redacted, and what is none is left alone."""

from __future__ import annotations

import json

import pytest

from patchead.redaction import REDACTED, redacted, redacted_values, secret_in, secrets_in

SECRET = "Zx9-Secret/Part+77"
WITH_SECRETS = [
    f"s3://KEYID:{SECRET}@bucket/archive",
    f"simplecache::s3://KEYID:{SECRET}@bucket/archive",
    f"blockcache::simplecache::s3://KEYID:{SECRET}@bucket",
    f"zip://images::https://user:{SECRET}@host/x.zip",
    f"zip://user:{SECRET}@x::https://host/x.zip",
    f"s3://KEYID:{SECRET}",
    f"https://{SECRET.replace('/', '')}@host/x",
    f"user:{SECRET}@host:8333",
    f"//user:{SECRET}@host",
    f"https:/user:{SECRET}@host",
    f"https:\\\\user:{SECRET}@host",
    "s3%3A%2F%2FKEYID%3AZx9-Secret%2FPart+77%40bucket",
    "https://user%3AZx9-Secret%40host/x",
    "https://user%253AZx9-Secret%2540host/x",
    "https://host/x?X-Amz-Signature=Zx9-Secret",
    "https://host/x?X-Amz-Credential=Zx9-Secret&X-Amz-Date=1",
    "https://host/x?x-amz-security-token=Zx9-Secret",
    "https://account.blob.core.windows.net/c?sv=2022&se=2027&sig=Zx9-Secret",
    "https://host/x?token=Zx9-Secret",
    "https://host/x?tok%65n=Zx9-Secret",
    "https://host/x%3Ftoken%3DZx9-Secret",
    "https://host/x?hdnts=Zx9-Secret",
    "https://host/x#access_token=Zx9-Secret",
    "https://host/x;password=Zx9-Secret",
    "host/list.txt?sig=Zx9-Secret",
    "host/list.txt?AWSAccessKeyId=Zx9-Secret&Signature=Zx9-Secret",
    "aws_secret_access_key=Zx9-Secret",
    "filecache::https://host/x?sig=Zx9-Secret",
    "-----BEGIN RSA PRIVATE KEY-----\nZx9-Secret",
]
KEY_FORMS = [
    "AKIA" + "IOSFODNN7EXAMPLE",
    "hf" + "_" + "a" * 30,
    "gh" + "p_" + "a" * 36,
    "eyJhbGciOiJI.eyJzdWIiOiIx.c2ln",
]
WITHOUT = [
    "s3://bucket/archive/product=screw/night=2026-11-21",
    "/data/archive",
    "file:///data@home/x",
    "./lake",
    "C:/data/archive@2x",
    "file:///data/archive@home/x",
    "https://host:8333/archive/img@2x.png",
    "http://127.0.0.1:8333",
    "http://[::1]:8333/x@y",
    "https://host/weights.safetensors?download=true",
    "https://host/x?versionId=abc",
    "zip://images::file:///data/x@2.zip",
    "simplecache::s3://bucket/x@2",
    "gs://bucket/100%25/x",
    "{product}/{station}/{night}/{filename}",
    "timm/vit_small_patch14_dinov2.lvd142m",
    "hub:augreg_in21k_ft_in1k",
    "2026-11-21",
    "abc@example.org",
    "cannot read x: it does not exist. Check the keys (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), or the policy.",
]


@pytest.mark.parametrize("text", WITH_SECRETS + KEY_FORMS)
def test_every_way_to_hide_a_secret_is_found_and_never_quoted(text: str) -> None:
    found = secret_in(text)
    assert found is not None
    assert "Zx9" not in found


@pytest.mark.parametrize("text", WITH_SECRETS)
@pytest.mark.parametrize(
    "sentence", ["{}", "cannot read {}: OSError: no such host", "got '{}'", '{{"uri": "{}"}}', "({})"]
)
def test_a_secret_in_a_sentence_is_taken_out(text: str, sentence: str) -> None:
    clean = redacted(sentence.format(text))
    assert "Zx9" not in clean
    assert REDACTED in clean
    assert redacted(clean) == clean


@pytest.mark.parametrize("text", KEY_FORMS)
def test_what_looks_like_a_key_is_taken_out(text: str) -> None:
    assert redacted(f"denied for {text}, sorry") == f"denied for {REDACTED}, sorry"


@pytest.mark.parametrize("text", WITHOUT)
def test_what_holds_no_secret_is_left_alone(text: str) -> None:
    assert secret_in(text) is None
    assert redacted(text) == text
    assert redacted(f"cannot read {text!r}") == f"cannot read {text!r}"


def test_the_environment_s_own_secrets_are_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "plain+words/here")
    monkeypatch.setenv("SOME_SERVICE_TOKEN", "another-plain-word")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    assert redacted("a plain+words/here b another-plain-word false") == f"a {REDACTED} b {REDACTED} false"


def test_nested_values_are_searched_and_redacted_with_their_keys() -> None:
    values = {
        "archive": {"assume": {"station": "https://u:Zx9@h", "api_token": "Zx9"}, "products": ["a", "s3://K:Zx9@b"]},
        "https://u:Zx9@h": {"n": 1},
    }
    found = list(secrets_in(values))
    assert [where for where, _ in found] == [
        "archive.assume.station", "archive.assume.api_token", "archive.products", REDACTED,
    ]  # fmt: skip
    assert "Zx9" not in str(found)
    del values["archive"]["assume"]["api_token"]  # type: ignore[attr-defined]
    assert "Zx9" not in json.dumps(redacted_values(values))


def test_headers_and_documents_of_a_store_lose_their_tokens() -> None:
    text = (
        "Authorization: Bearer Zx9abc {'SessionToken': 'Zx9abc', \"password\": \"Zx9abc\"} x-amz-security-token=Zx9abc"
    )
    assert "Zx9" not in redacted(text)


def test_a_long_hostile_text_is_searched_in_no_time() -> None:
    for text in ("://a:" * 4000, "a" * 40_000, "%25" * 10_000, "?a=" * 10_000, "token" * 8000, "s3://" + "a:" * 10_000):
        redacted(text)
        secret_in(text)
