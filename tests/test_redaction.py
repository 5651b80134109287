"""Keys reach no file and no message."""

from __future__ import annotations

import base64
import urllib.parse
from pathlib import Path

import pytest

from spotcli import recipe_yaml
from spotcli.providers.litellm import LitellmClient
from spotcli.providers.settings import ProviderSettings
from spotcli.redaction import public_value, redact, without_credentials


def test_secret_values_become_digests_that_tell_them_apart() -> None:
    headers = {"extra_headers": {"Authorization": "Bearer abc", "X-Trace": "1"}, "aws_secret_access_key": "xyz"}
    public = public_value(headers)
    assert public["extra_headers"]["X-Trace"].startswith("[secret ")  # any header may be a key
    assert "abc" not in str(public)
    assert "xyz" not in str(public)
    other = public_value({"extra_headers": {"Authorization": "Bearer abd"}})
    assert other["extra_headers"]["Authorization"] != public["extra_headers"]["Authorization"]
    assert public_value({"max_tokens": 5, "reasoning_effort": "low"}) == {"max_tokens": 5, "reasoning_effort": "low"}


def test_an_address_is_shown_without_its_password() -> None:
    assert without_credentials("http://user:secret@host:8000/v1") == "http://host:8000/v1"
    assert without_credentials("http://host:8000/v1") == "http://host:8000/v1"
    assert "secret" not in redact("cannot connect to http://user:secret@host:8000/v1")


@pytest.mark.parametrize("section", ["sample", "rectify", "eval"])
def test_no_secret_is_part_of_a_version_or_of_a_resolved_recipe(section: str) -> None:
    params = {"extra_headers": {"Authorization": "Bearer hidden"}, "api_version": "2026-01-01"}
    version = LitellmClient("gpt-4o", ProviderSettings(params=params)).version
    assert "hidden" not in version
    assert "2026-01-01" in version
    overrides = [f"{section}.params={{extra_headers: {{Authorization: Bearer hidden}}}}"]
    recipe = recipe_yaml.load(None, overrides, {f"{section}.base_url": "http://user:hidden@host/v1"})
    dumped = recipe_yaml.dump(recipe)
    assert "hidden" not in dumped
    assert "http://host/v1" in dumped


def test_the_dumped_recipe_still_loads(tmp_path: Path) -> None:
    recipe = recipe_yaml.load(None, ["rectify.params={api_key_name: x, top_p: 0.5}"])
    (tmp_path / "recipe.yaml").write_text(recipe_yaml.dump(recipe))
    assert recipe_yaml.load(tmp_path / "recipe.yaml").rectify.params["top_p"] == 0.5


PROVIDER_KEY = "sk-proj-Secret0123456789ABCDEFabcdef"
HEX_KEY = "0123456789abcdef0123456789abcdef"
ECHOES = {
    "whole": PROVIDER_KEY,
    "upper case": HEX_KEY.upper(),
    "its start": HEX_KEY[:20],
    "its end": HEX_KEY[-12:],
    "masked": PROVIDER_KEY[:12] + "***" + PROVIDER_KEY[-4:],
    "masked without a prefix": HEX_KEY[:8] + "****" + HEX_KEY[-4:],
    "shortened": HEX_KEY[:6] + "..." + HEX_KEY[-4:],
    "base64": base64.b64encode(PROVIDER_KEY.encode()).decode(),
    "base64 after a user name": base64.b64encode(f"me:{HEX_KEY}".encode()).decode(),
    "HTTP's basic form": "Basic " + base64.b64encode(f":{PROVIDER_KEY}".encode()).decode(),
    "hexadecimal": PROVIDER_KEY.encode().hex(),
    "in an address": urllib.parse.quote(PROVIDER_KEY, safe=""),
    "all of it escaped in an address": "".join(f"%{ord(character):02X}" for character in PROVIDER_KEY),
    "one character escaped in JSON": PROVIDER_KEY.replace("-", "\\u002d"),
    "escaped in JSON": "".join(f"\\u{ord(character):04x}" for character in HEX_KEY),
    "escaped in HTML": "".join(f"&#{ord(character)};" for character in HEX_KEY),
    "spaced": " ".join(PROVIDER_KEY),
    "in groups": "-".join(HEX_KEY[index : index + 4] for index in range(0, 32, 4)),
    "with invisible characters": "\u200b".join(HEX_KEY),
    "on two lines": f"{PROVIDER_KEY[:18]}\n{PROVIDER_KEY[18:]}",
    "reversed": PROVIDER_KEY[::-1],
    "the password of an address": "hunter2hunter2",
}


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", PROVIDER_KEY)
    monkeypatch.setenv("AZURE_API_KEY", HEX_KEY)
    monkeypatch.setenv("DATABASE_URL", "http://user:hunter2hunter2@host/v1")
    # Neither is a secret, although the names are those of secrets.
    monkeypatch.setenv("DEFAULT_PASSWORD", "password")
    monkeypatch.setenv("TOKEN_PATH", str(Path(__file__).parent))


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
def test_no_spelling_of_a_key_is_shown(echo: str) -> None:
    shown = redact(f"invalid key: {echo} (see the manual)")
    remaining = shown.removeprefix("invalid key: ").removesuffix(" (see the manual)")
    # The word before the key, and the line break in it, are the provider's.
    assert remaining.removeprefix("Basic ").replace("\n", "").replace("[redacted]", "") == ""


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize(
    "text",
    [
        "The model `gpt-4o-mini` does not exist. See https://platform.openai.com/docs/guides/error-codes/api-errors.",
        "This model's maximum context length is 8192 tokens and your request has 612 (16384 > 8192 - 612).",
        "wrong password for this user",
        "loading... 12345678 tokens at 0123456 per minute",
        "hf-internal-testing/tiny-random-llama and sk-learn",
        "Bearer authentication is required, and Basic authentication is not supported",
        f"no such file: {Path(__file__).parent}/missing",
    ],
)
def test_ordinary_text_is_kept(text: str) -> None:
    assert redact(text) == text


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize(
    "part", ["a", "\\", "%25", "0123456", "sk-.", "eyJ", "://a:", "Bearer ", f"{PROVIDER_KEY[:9]} "]
)
@pytest.mark.timeout(20)
def test_a_long_text_takes_linear_time(part: str) -> None:
    # Anything quadratic takes much longer than the time limit.
    assert redact(part * (200_000 // len(part)))
