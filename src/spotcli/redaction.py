"""Keep keys out of files and messages: secret settings as digests, addresses without passwords, redacted texts."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

_NAME = re.compile(r"KEY|TOKEN(?!S)|SECRET|PASSWORD|PASSWD|CREDENTIAL|AUTHORIZATION|COOKIE", re.IGNORECASE)
"""Names of environment variables, parameters and headers whose values are secret."""
_HEADERS = re.compile(r"headers$", re.IGNORECASE)
"""Names of settings with headers of requests; the value of any header may be secret."""
_KEY_LIKE = re.compile(
    r"""
      \b(?:sk|pk|rk|gsk|xai|hf|r8|pplx|nvapi)[-_][A-Za-z0-9_\-*.]{6,}     # the usual prefixes, also masked with stars
    | \bAIza[A-Za-z0-9_\-]{10,}                                           # Google
    | \bA(?:KIA|SIA)[A-Z0-9]{12,}                                         # AWS
    | \beyJ[A-Za-z0-9_\-]{10,}(?:\.[A-Za-z0-9_\-]+)*                      # a JSON web token
    | (?<=Bearer\s)[^\s"',]+
    | (?<=[?&]key=)[^\s"'&]+
    | (?<=://)[^\s/@:]*:[^\s/@]+(?=@)                                     # user and password in an address
    """,
    re.VERBOSE,
)


def redact(text: str) -> str:
    """Remove the values of environment variables that are named like keys, and everything that looks like a key."""
    values = {value for name, value in os.environ.items() if _NAME.search(name) and len(value) >= 8}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "[redacted]")
    return _KEY_LIKE.sub("[redacted]", text)


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
