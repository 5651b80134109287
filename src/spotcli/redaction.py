"""Keep keys out of files and messages: secret settings as digests, addresses without passwords, redacted texts."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

_NAME = re.compile(r"KEY|TOKEN(?!S)|SECRET|PASSWORD|PASSWD|CREDENTIAL|AUTHORIZATION|COOKIE", re.IGNORECASE)
"""Names of environment variables, parameters and headers whose values are secret."""
_NOT_SECRET = re.compile(r"[a-z]{1,11}|[A-Z]{1,11}|[A-Z][a-z]{1,10}|[a-z][a-z0-9+.-]*://[^@\s]*")
"""Values that such a variable can have and that are no secrets: switches, single words, addresses."""
_SHORTEST = 8
"""Characters; shorter values are not searched for, since ordinary text contains them."""
_FRAGMENT = 8
"""Letters and digits of a secret that are a fragment of it, if there is a digit among them."""
_WORDY_FRAGMENT = 12
"""The same without a digit or without a letter, since ordinary words and numbers are that long."""

_HEADERS = re.compile(r"headers$", re.IGNORECASE)
"""Names of settings with headers of requests; the value of any header may be secret."""
_KEY_LIKE = re.compile(
    r"""
      \b(?:sk|pk|rk|gsk|xai|pplx|nvapi)[-_](?:(?=[A-Za-z_\-.]{,99}[\d*])[A-Za-z0-9_\-*.]{6,}|[A-Za-z0-9_\-]{20,})
                                                                          # the usual prefixes, also masked with stars
    | \b(?:hf|r8)_[A-Za-z0-9*]{12,}                                       # Hugging Face, Replicate
    | \bAIza[A-Za-z0-9_\-]{10,}                                           # Google
    | \bya29\.[A-Za-z0-9_\-.]{10,}                                        # Google, for an hour
    | \bA(?:KIA|SIA)[A-Z0-9]{12,}                                         # AWS
    | \beyJ[A-Za-z0-9_\-]{10,}(?:\.[A-Za-z0-9_\-]+)*                      # a JSON web token
    | (?<=Bearer\s)(?:(?=[^\s"',]*\d)[^\s"',]{8,}|[^\s"',]{20,})
    | (?<=Basic\s)[A-Za-z0-9+/=_\-]{16,}
    | (?<=[?&]key=)[^\s"'&]+
    | (?<=://)[^\s/@:]*:[^\s/@]+(?=@)                                     # user and password in an address
    """,
    re.VERBOSE,
)
_CHARACTER = re.compile(
    r"""
      \\{1,4}u\{?(?P<u>[0-9a-fA-F]{4,6})\}?  | \\{1,4}x(?P<x>[0-9a-fA-F]{2})  | %(?:25){,3}(?P<percent>[0-9a-fA-F]{2})
    | &\#x(?P<hex>[0-9a-fA-F]{1,6});      | &\#(?P<decimal>[0-9]{1,7});
    | [^\W_]
    """,
    re.VERBOSE,
)
"""A letter or digit, as it is or escaped as in JSON, Python, an address or HTML."""
_ESCAPE = re.compile(r"\\[ux]|%|&\#")
_OTHER = re.compile(r"[\W_]+")
_ENCODED = re.compile(r"[A-Za-z0-9+/=_\-]*")
_PASSWORD = re.compile(r"://[^\s/@:]*:([^\s/@]+)@")
_MASK = re.compile(r"(?:[*•…]+|\.{3,})[A-Za-z0-9_\-]{0,8}")


def redact(text: str) -> str:
    """Remove the values of environment variables that are named like keys, and everything that looks like a key.

    A value is found in other spellings too: in part, masked, in the other case, reversed, spaced, escaped, as base64 or
    as hexadecimal digits.
    """
    values = _secret_values()
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "[redacted]")
    text = _KEY_LIKE.sub("[redacted]", text)
    parts, done = [], 0
    for start, end in _fragments(text, values):
        parts += [text[done:start], "[redacted]"]
        done = end
    return "".join([*parts, text[done:]])


def _secret_values() -> frozenset[str]:
    values = {value for name, value in os.environ.items() if _NAME.search(name) and _is_secret(value)}
    values |= {match[1] for value in os.environ.values() if (match := _PASSWORD.search(value))}
    return frozenset(value for value in values if len(value) >= _SHORTEST)


def _is_secret(value: str) -> bool:
    is_path = value.startswith(("/", "~", ".")) and os.path.exists(os.path.expanduser(value))
    return not is_path and not _NOT_SECRET.fullmatch(value)


@dataclass(frozen=True)
class _Spellings:
    """The letters and digits of all secrets, in lower case, in each spelling."""

    runs: frozenset[str]
    """All of the following."""
    plain: frozenset[str]
    """Runs of ``_FRAGMENT`` characters."""
    encoded: frozenset[str]
    """The same of the base64 text, whose other characters are removed with it."""
    whole: tuple[str, ...]
    masked: re.Pattern[str] | None
    """The first characters of a secret and a mask."""


@lru_cache(maxsize=8)
def _spellings(values: frozenset[str]) -> _Spellings:
    plain, encoded, whole = set(), set(), []
    for value in values:
        data = value.encode()
        for text in (value, value[::-1], data.hex()):
            letters = _letters(text)
            plain |= _runs(letters)
            if len(letters) >= _SHORTEST:
                whole.append(letters)
        for shift, lost in ((0, 0), (1, 2), (2, 3)):
            # What comes before the secret, such as a user name, shifts its bits; the last characters mix with others.
            coded = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
            encoded |= _runs(_letters(coded[lost:-2]))
    starts = "|".join(sorted(re.escape(value[:4]) for value in values))
    masked = re.compile(rf"(?:{starts})[A-Za-z0-9_\-]{{,99}}(?:[*•…]+|\.{{3,}}|x{{3,}})[A-Za-z0-9_\-]*", re.IGNORECASE)
    return _Spellings(
        frozenset(plain | encoded), frozenset(plain), frozenset(encoded), tuple(whole), masked if values else None
    )


def _letters(text: str) -> str:
    return "".join(character for character in text.lower() if character.isalnum())


def _runs(letters: str) -> set[str]:
    return {letters[index : index + _FRAGMENT] for index in range(len(letters) - _FRAGMENT + 1)}


def _fragments(text: str, values: frozenset[str]) -> list[tuple[int, int]]:
    """Where a text has fragments of secrets, in their order and without overlap."""
    spellings = _spellings(values)
    if spellings.masked is None:
        return []
    spans = [match.span() for match in spellings.masked.finditer(text)]
    if not _may_have_fragments(text, spellings):
        return _merged(spans)
    characters = [(match, letter) for match in _CHARACTER.finditer(text) if (letter := _plain(match))]
    letters = "".join(letter for _, letter in characters)
    places = [match.span() for match, _ in characters]
    for start, end, encoded in _known_runs(letters, spellings):
        first, last = places[start][0], places[end - 1][1]
        if end - start < min(_WORDY_FRAGMENT, last - first):
            continue  # a few characters of several words
        if encoded:
            first -= len(_ENCODED.match(text[max(0, first - 99) : first][::-1])[0])  # type: ignore[index]  # it matches any text
            last = _ENCODED.match(text, last).end()  # type: ignore[union-attr]
        mask = _MASK.match(text, last)
        spans.append((first, mask.end() if mask else last))
    return _merged(spans)


def _may_have_fragments(text: str, spellings: _Spellings) -> bool:
    """Whether a text has a run that a secret has too; most texts have none, and this is quick."""
    letters = _CHARACTER.sub(_plain, text) if _ESCAPE.search(text) else text.lower()
    letters = _OTHER.sub("", letters)
    return not spellings.runs.isdisjoint(
        letters[index : index + _FRAGMENT] for index in range(len(letters) - _FRAGMENT + 1)
    )


def _plain(match: re.Match[str]) -> str:
    """The letter or digit of a match, in lower case; empty for an escape of another character."""
    code = next((int(match[name], 16) for name in ("u", "x", "percent", "hex") if match[name]), None)
    if match["decimal"]:
        code = int(match["decimal"])
    character = match[0] if code is None else chr(code) if code < 0x110000 else ""
    return character.lower()[:1] if character.isalnum() else ""


def _known_runs(letters: str, spellings: _Spellings) -> Iterator[tuple[int, int, bool]]:
    """(start, end, whether it is base64) of each run that belongs to a secret."""
    for runs, encoded in ((spellings.plain, False), (spellings.encoded, True)):
        covered: list[tuple[int, int]] = []
        for index in range(len(letters) - _FRAGMENT + 1):
            if letters[index : index + _FRAGMENT] in runs:
                covered.append((index, index + _FRAGMENT))
        for start, end in _merged(covered):
            run = letters[start:end]
            if len(run) >= _WORDY_FRAGMENT or _is_mixed(run) or run in spellings.whole:
                yield start, end, encoded


def _is_mixed(run: str) -> bool:
    return any(map(str.isdigit, run)) and any(map(str.isalpha, run))


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def public_value(value: Any, name: str = "") -> Any:
    """A setting as it may be written to a file: secret values become digests, which still differ if the values do.

    Args:
        name: of the setting; its name, or the name of a setting around it, tells that a value is secret.
    """
    if (_NAME.search(name) or _HEADERS.search(name)) and isinstance(value, str | int):
        digest = hashlib.sha256(f"spot:{name}:{value}".encode()).hexdigest()
        return f"[secret {digest[:8]}]"
    if isinstance(value, Mapping):
        return {key: public_value(item, _inner_name(name, str(key))) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [public_value(item, name) for item in value]
    return _KEY_LIKE.sub("[redacted]", value) if isinstance(value, str) else value


def _inner_name(name: str, key: str) -> str:
    """The name by which a value inside a setting is judged."""
    if _NAME.search(name) or (_HEADERS.search(name) and not _NAME.search(key)):
        return name
    return key


def without_credentials(url: str | None) -> str | None:
    """An address without user and password."""
    if url is None or "@" not in url:
        return url
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
