"""Secrets in addresses and other texts: settings refuse them, and what is recorded or printed has them taken out.

What counts: a user name or password before an ``@``, with or without a scheme, in any part of a chained address,
percent-encoded or not; every parameter of an address but the few that are known to be harmless; an assignment to a name
like ``token`` or ``password``; and what has the form of a well-known key. The values of the environment's own secrets
are taken out of texts as well.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

REDACTED = "***"

# One character of an address, plain or percent-encoded any number of times.
_COLON, _AT = r"(?::|%(?:25)*3[Aa])", r"(?:@|%(?:25)*40)"
_SLASH, _MARK = r"(?:[/\\]|%(?:25)*(?:2[Ff]|5[Cc]))", r"(?:[?&;#]|%(?:25)*(?:3[FfBb]|26|23))"
_EQUALS = r"(?:=|%(?:25)*3[Dd])"
_END = r"\s'\"<>`"
_USER = rf"(?:(?!{_COLON}|{_SLASH}|{_AT}|{_MARK})[^{_END}]){{1,512}}"
_PORT = rf"\d{{1,5}}(?:{_SLASH}|{_MARK}|{_AT}|[{_END}]|$)"
#: user:password@, the password with any character but a blank: up to the last @ of the word.
_PASSWORD = rf"{_USER}{_COLON}(?!{_COLON}|{_PORT})(?:(?!::)[^{_END}]){{0,1024}}{_AT}"
_SCHEME = rf"(?<![A-Za-z0-9+.-])[A-Za-z0-9][A-Za-z0-9+.-]{{0,30}}{_COLON}{_SLASH}{{1,3}}"
_ANYONE = rf"(?:(?!{_SLASH}|{_MARK})[^{_END}]){{0,1024}}{_AT}"
_USERINFO = re.compile(
    rf"({_SCHEME})(?:{_PASSWORD}|(?<![/\\]{{3}}){_ANYONE})|(?<![^{_END}(\[{{=,:])({_SLASH}{{0,3}})(?!{_USER}{_COLON}{_SLASH}){_PASSWORD}"
)
#: s3://KEY:SECRET without an @: nothing but a port may follow a host's colon.
_NO_PORT = re.compile(rf"({_SCHEME})(?!\[){_USER}{_COLON}(?!{_COLON}|{_PORT}|{_SLASH})(?!$)[^{_END}]*")

_PARAMETER = re.compile(rf"({_MARK})([\w.%+~\[\]-]{{1,100}}?)({_EQUALS})((?:(?!{_MARK})[^{_END}])*)")
_ADDRESS = re.compile(rf"{_SCHEME}[^{_END}]*")
_HARMLESS = {"versionid", "version", "generation", "download", "ref", "raw", "listtype", "prefix", "delimiter"}
_HARMLESS |= {"maxkeys", "encodingtype", "startafter", "uploads", "partnumber", "uploadid", "delete", "xid"}

_SECRET_WORDS = r"signature|token|secret|passw|passphrase|credential|api-?_?key|access-?_?key|account-?_?key"
_SECRET_WORDS += r"|shared-?_?key|private-?_?key|authorization|bearer|connection-?_?string"
_SHORT = {"sig", "sign", "key", "auth", "pwd", "pass", "pw", "sas", "code", "jwt", "hmac", "user", "username", "login"}
_SECRET_NAME = re.compile(_SECRET_WORDS, re.IGNORECASE)
_ASSIGNED = re.compile(
    rf"(?<![\w.-])(?=[\w.-]{{0,100}}?(?i:{_SECRET_WORDS}))"
    rf"([\w.-]{{3,100}}['\"]?\s{{0,3}}(?:{_EQUALS}|(?<=['\"]):|(?<=ization):)\s{{0,3}}(?:b?['\"])?"
    rf"(?:(?:Bearer|Basic|AWS4-HMAC-SHA256)\s+)?)([^{_END},;&)}}\]]+)"
)
_KNOWN_FORMS = re.compile(
    r"\b(?:(?:AKIA|ASIA)[A-Z0-9]{12,}|hf_\w{20,}|gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}"
    r"|AIza[\w-]{30,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?:.|\n)*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)"
)
_OF_ENVIRONMENT = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|API_?KEY|ACCOUNT_KEY")
_NOT_A_SECRET = re.compile(r"(FILE|PATH|DIR|URI|URL|MODE|PARALLELISM)$")
_PLAIN = re.compile(r"[^:=%@]*")  # without one of these, a text can hold no more than a key of a well-known form
_SHORTEST = 8  # of a secret in the environment: what is shorter is a word like "false"


def secret_in(text: str) -> str | None:
    """Name what kind of secret a setting's text holds, without quoting it; None if there is none."""
    if _PLAIN.fullmatch(text):
        return "a key or a token" if _KNOWN_FORMS.search(text) else None
    for form in _decoded(text):
        if _USERINFO.search(form) or _NO_PORT.search(form):
            return "a user name or password"
        if any(_is_secret(name) for name in _parameters(form)):
            return "a parameter that may be a key, a signature or a token"
        if _ASSIGNED.search(form) or _KNOWN_FORMS.search(form):
            return "a key or a token"
    return None


def secrets_in(values: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Find the secrets in nested plain values: where each is, as a dotted name, and what it is.

    A text under a name like ``password`` is a secret whatever it looks like.
    """
    if isinstance(values, Mapping):
        for key, value in values.items():
            name = str(key)
            where = f"{path}.{REDACTED if secret_in(name) else name}".lstrip(".")
            if found := secret_in(name):
                yield where, found
            elif _SECRET_NAME.search(name) and isinstance(value, str) and value:
                yield where, "a secret by its name"
            else:
                yield from secrets_in(value, where)
    elif isinstance(values, (list, tuple, set, frozenset)):
        for value in values:
            yield from secrets_in(value, path)
    elif isinstance(values, str) and (found := secret_in(values)):
        yield path, found


def redacted(text: str) -> str:
    """Take the secrets out of a text that is recorded or printed; what is not secret stays as it is."""
    return _redacted(text, _of_environment())


def _redacted(text: str, of_environment: Sequence[str]) -> str:
    for value in of_environment:
        text = text.replace(value, REDACTED)
    text = _KNOWN_FORMS.sub(REDACTED, text)
    if _PLAIN.fullmatch(text):
        return text
    text = _USERINFO.sub(lambda found: f"{found[1] or found[2] or ''}{REDACTED}@", text)
    text = _NO_PORT.sub(lambda found: f"{found[1]}{REDACTED}", text)
    text = _ADDRESS.sub(lambda found: _without_values(found[0], in_address=True), text)
    text = _without_values(text, in_address=False)
    return _ASSIGNED.sub(lambda found: f"{found[1]}{REDACTED}", text)


def redacted_values(values: Any) -> Any:
    """Take the secrets out of nested plain values, keys included: what becomes a JSON file or column."""
    return _redacted_values(values, _of_environment())


def _redacted_values(values: Any, of_environment: Sequence[str]) -> Any:
    if isinstance(values, str):
        return _redacted(values, of_environment)
    if isinstance(values, Mapping):
        return {_redacted_values(key, of_environment): _redacted_values(v, of_environment) for key, v in values.items()}
    if isinstance(values, (list, tuple)):
        return type(values)(_redacted_values(value, of_environment) for value in values)
    return values


def _decoded(text: str) -> Iterator[str]:
    """The text, and what it is with its percent-encoding taken off, again and again."""
    yield text
    while (plain := unquote(text)) != text:
        yield (text := plain)


def _parameters(text: str) -> Iterator[tuple[str, bool]]:
    """Name the parameters in a text, and say whether each is part of an address with a scheme."""
    addresses = [found.span() for found in _ADDRESS.finditer(text)]
    for found in _PARAMETER.finditer(text):
        yield found[2], any(start <= found.start() < stop for start, stop in addresses)


def _is_secret(parameter: tuple[str, bool]) -> bool:
    name, in_address = parameter
    for form in _decoded(name):
        plain = re.sub(r"[^a-z0-9]", "", form.lower())
        if _SECRET_NAME.search(form) or plain in _SHORT or plain.startswith(("xamz", "xgoog", "xoss", "xcos", "xobs")):
            return True
        if plain in _HARMLESS:
            return False
    return in_address


def _without_values(text: str, *, in_address: bool) -> str:
    def without(found: re.Match[str]) -> str:
        secret = _is_secret((found[2], in_address))
        return f"{found[1]}{found[2]}{found[3]}{REDACTED if secret else found[4]}"

    return _PARAMETER.sub(without, text)


def _of_environment() -> list[str]:
    """The values of this process's environment that are secrets, the longest first."""
    found = {os.environ.get(name, "") for name in [*os.environ] if _names_a_secret(name)}
    return sorted((value for value in found if len(value) >= _SHORTEST), key=len, reverse=True)


@lru_cache(maxsize=1024)
def _names_a_secret(name: str) -> bool:
    return bool(_OF_ENVIRONMENT.search(name.upper()) and not _NOT_A_SECRET.search(name.upper()))
