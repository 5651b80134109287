"""Errors of a provider that every request would get: each with the problem and its own cure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from spotcli.errors import UserError
from spotcli.redaction import redact, without_credentials


@dataclass(frozen=True)
class RequestSettings:
    """What errors name."""

    model: str
    section: str = "rectify"
    """The section of the recipe that the settings come from."""
    base_url: str | None = None
    unset: Mapping[str, str] = field(default_factory=dict)
    """Parameter of a request -> what leaves it out, such as ``-s sample.temperature=null``."""

    @property
    def model_flag(self) -> str:
        return {"sample": "--model", "eval": "MODEL"}.get(self.section, "--oracle")

    @property
    def where(self) -> str:
        return self.model


@dataclass(frozen=True)
class Failure:
    """What is known about a request that got no reply."""

    error: BaseException
    status: int | None
    """The HTTP state, or litellm's guess of one."""
    message: str
    """The provider's message in one line, without keys."""
    details: str
    """All texts of the error."""
    retry_after: float | None = None
    """Seconds that the provider asks to wait."""
    unsupported: bool = False
    """litellm knows that the model does not support a parameter, so nothing was sent."""

    def causes(self) -> Iterator[BaseException]:
        """The exception, and those that led to it; the first cause is the last."""
        error: BaseException | None = self.error
        seen: set[int] = set()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            yield error
            error = error.__cause__ or error.__context__

    def is_caused_by(self, *names: str) -> bool:
        """Whether an exception of one of these names led to the error."""
        return any(not set(names).isdisjoint(kind.__name__ for kind in type(error).__mro__) for error in self.causes())

    @property
    def cause(self) -> str:
        """The first cause in one line, without keys."""
        *_, first = self.causes()
        text = " ".join((getattr(first, "strerror", None) or str(first) or type(first).__name__).split())
        return redact(text[:500]) if text else self.message


_QUOTA_EXHAUSTED = re.compile(
    r"insufficient_quota|insufficient (?:credit|balance|fund|quota)|credit balance|billing_hard_limit|out of credits"
    r"|billing_not_active|credits? (?:are|is|have been) (?:depleted|exhausted)|spend(?:ing)? (?:cap|limit)"
    r"|monthly (?:cap|limit|quota)|exceeded your (?:monthly|current billing)|payment required|arrears"
    r"|PerDay|(?:tokens|requests) per day",
    re.IGNORECASE,
)
_UNKNOWN_MODEL = re.compile(
    r"not a valid model|model identifier is invalid|invalid model|unknown model|model_not_found|DeploymentNotFound"
    r"|model\b.{0,80}?\b(?:not found|does not exist|doesn't exist|not exist|is not found|has been (?:removed|retired))"
    r"|no endpoints found|try pulling",
    re.IGNORECASE,
)
_KEY_REJECTED = re.compile(
    r"API key not valid|API_KEY_INVALID|invalid (?:x-)?api[- _]?key|api key expired", re.IGNORECASE
)
_LOCATION = re.compile(r"(?:country|region|location)\b.{0,60}not supported|unsupported_country", re.IGNORECASE)
_NO_API = re.compile(
    r"- Error code: 404\s*$|<html|<!doctype|\"detail\": ?\"Not Found\"|page not found|no such path|Cannot POST",
    re.IGNORECASE,
)
_PLAIN_TO_TLS = re.compile(r"plain HTTP request was sent to HTTPS port|HTTP request to an HTTPS server", re.IGNORECASE)
_TWO_CREDENTIALS = re.compile(r"Cannot combine AUTHORIZATION header", re.IGNORECASE)
_PULL = re.compile(r"model ['\"]([\w./:-]+)['\"] not found")


def permanent_error(failure: Failure, settings: RequestSettings, *, replied: bool) -> UserError | None:
    """The error for a failure that every request would get; None if another request can succeed.

    Args:
        replied: the provider has replied before, so a failure of the connection is temporary.
    """
    problem = _of_parameter(failure, settings) or _of_account(failure, settings) or _of_address(failure, settings)
    if problem is None and not replied:
        problem = _of_connection(failure, settings)
    if problem is None:
        return None
    message, cure = problem
    return UserError(message, where=settings.where, cure=cure)


Problem = tuple[str, str]
"""(message, cure)"""


_REFUSAL = (
    r"unsupported|not support|does ?n.t support|unrecognized|unknown name|unknown parameter|unexpected|not permitted"
    r"|not allowed|not accepted|deprecated|cannot both|must be none|no longer|only the default|incompatible"
    r"|invalid value"
)


def refused_parameter(failure: Failure, names: Mapping[str, str] | list[str]) -> str | None:
    """The parameter that the provider, or litellm, refuses for this model."""
    if not failure.unsupported and failure.status not in (400, 422):
        return None
    text = failure.details if failure.unsupported else failure.details[:2000]
    if not failure.unsupported and not re.search(_REFUSAL, text, re.IGNORECASE):
        return None
    places = {}
    for name in names:
        # A word near the refusal, in quotes or as an argument; an error may quote a long prompt elsewhere.
        word = rf"(?<![\w.-]){re.escape(name)}(?![\w-])"
        near = re.search(rf"{word}.{{0,120}}?(?:{_REFUSAL})|(?:{_REFUSAL}).{{0,80}}?{word}", text, re.IGNORECASE)
        if near:
            places[name] = re.search(word, text, re.IGNORECASE).start()  # type: ignore[union-attr]  # it is in `near`
    return min(places, key=lambda name: places[name]) if places else None


def _of_parameter(failure: Failure, settings: RequestSettings) -> Problem | None:
    name = refused_parameter(failure, settings.unset)
    if name:
        message = failure.message.partition(" To drop ")[0]
        return f"the model does not accept '{name}' as it is set: {message}", settings.unset[name]
    if failure.unsupported:
        return failure.message, "remove that parameter, or choose another model"
    return None


def _of_account(failure: Failure, settings: RequestSettings) -> Problem | None:
    """Key, quota, location."""
    status, message = failure.status, failure.message
    if isinstance(failure.error, ImportError) or failure.is_caused_by("ImportError"):
        return message, f"pip install {_package(failure)}"
    if status == 402 or _is_quota_exhausted(failure):
        cure = "add credit or raise the quota at the provider, then run the same command again; all replies are kept"
        return f"the provider's quota is exhausted: {message}", cure
    if status in (400, 403) and _LOCATION.search(failure.details):
        return f"the provider does not serve this location: {message}", "use a provider that does, or its address there"
    if status in (400, 403) and _UNKNOWN_MODEL.search(failure.details) and not _KEY_REJECTED.search(failure.details):
        return _unknown_model(failure, settings)
    if status in (401, 403) or (status == 400 and _KEY_REJECTED.search(failure.details)):
        cure = "check the key in the environment, and that it may use this model"
        return f"the provider rejected the key: {message}", cure
    return None


def _package(failure: Failure) -> str:
    """The package of a missing module."""
    names = [error.name for error in failure.causes() if isinstance(error, ImportError) and error.name]
    module = names[-1] if names else ""
    if module.partition(".")[0] == "google" or "google" in failure.message:
        return "google-auth"
    return module.partition(".")[0] or "the package"


def _is_quota_exhausted(failure: Failure) -> bool:
    if failure.status not in (400, 403, 429):
        return False
    if _QUOTA_EXHAUSTED.search(failure.details):
        return True
    # Google writes "exceeded your current quota" for a limit per minute too, but then names the time to wait.
    return failure.status == 429 and "exceeded your current quota" in failure.details and failure.retry_after is None


def _of_address(failure: Failure, settings: RequestSettings) -> Problem | None:
    """Model and address, as far as the provider's answer shows them."""
    status, message = failure.status, failure.message
    if _TWO_CREDENTIALS.search(failure.details):
        where = f"-s '{settings.section}.params={{extra_headers: {{Authorization: ...}}}}'"
        return "--base-url has a user and a password, and the request has a key", f"remove them there, or use {where}"
    check = f"check --base-url{_shown(settings.base_url)}: it usually ends with /v1"
    if status == 407:
        return "the proxy requires a user and a password", "set HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT"
    if status == 400 and _PLAIN_TO_TLS.search(failure.details):
        return f"the server expects TLS: {message}", f"use https:// in --base-url{_shown(settings.base_url)}"
    if status == 405 or (status == 404 and _NO_API.search(failure.details) and not _PULL.search(failure.details)):
        return f"no model is served at this address: {message}", check
    if status in (404, 410):
        return _unknown_model(failure, settings)
    if status is not None and 300 <= status < 400:
        return f"the address redirects to another one (HTTP {status}): {message}", check
    return None


def _unknown_model(failure: Failure, settings: RequestSettings) -> Problem:
    cure = f"check the model's name ({settings.model_flag}) and --base-url"
    if pull := _PULL.search(failure.details.replace("\\", "")):
        cure = f"ollama pull {pull[1]}, on the server; or {cure}"
    return f"unknown model at this provider: {failure.message}", cure


def _of_connection(failure: Failure, settings: RequestSettings) -> Problem | None:
    """Host, certificate, TLS, proxy."""
    url = _shown(settings.base_url)
    if failure.is_caused_by("SSLCertVerificationError"):
        return f"the server's certificate is not trusted: {failure.cause}", _certificate_cure()
    if failure.is_caused_by("ProxyError", "ClientProxyConnectionError", "ClientHttpProxyError"):
        return f"the proxy cannot be reached: {failure.cause}", "check HTTPS_PROXY and HTTP_PROXY, or set NO_PROXY=HOST"
    if failure.is_caused_by("SSLError"):
        return f"the server does not speak TLS: {failure.cause}", f"use http:// in --base-url{url}, or check the port"
    if failure.is_caused_by("gaierror", "ClientConnectorDNSError"):
        return f"host not found{url}: {failure.cause}", "check --base-url, the network, and the proxy (HTTPS_PROXY)"
    if failure.is_caused_by("InvalidURL", "UnsupportedProtocol", "NonHttpUrlClientError"):
        return f"invalid address{url}", "write --base-url as http://HOST:PORT/v1"
    if "Port out of range" in failure.details or "Invalid port" in failure.details:
        return f"invalid port{url}", "write --base-url as http://HOST:PORT/v1"
    return None


def _certificate_cure() -> str:
    name = os.environ.get("SSL_CERT_FILE")
    if name and not os.path.isfile(name):
        return f"SSL_CERT_FILE names a file that does not exist: {name}"
    if name:
        return f"add the server's certificate authority to {name} (SSL_CERT_FILE)"
    return "export SSL_CERT_FILE=FILE with the certificate of the authority that signed it (PEM)"


def _shown(url: str | None) -> str:
    return f" ({without_credentials(url)})" if url else ""
