"""Keys reach no file and no message."""

from __future__ import annotations

from pathlib import Path

from spotcli import recipe_yaml
from spotcli.providers.litellm import LitellmClient, ProviderSettings
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


def test_no_secret_is_part_of_a_version_or_of_a_resolved_recipe() -> None:
    params = {"extra_headers": {"Authorization": "Bearer hidden"}, "api_version": "2026-01-01"}
    version = LitellmClient("gpt-4o", ProviderSettings(params=params)).version
    assert "hidden" not in version
    assert "2026-01-01" in version
    overrides = ["rectify.params={extra_headers: {Authorization: Bearer hidden}}"]
    recipe = recipe_yaml.load(None, overrides, {"rectify.base_url": "http://user:hidden@host/v1"})
    dumped = recipe_yaml.dump(recipe)
    assert "hidden" not in dumped
    assert "http://host/v1" in dumped


def test_the_dumped_recipe_still_loads(tmp_path: Path) -> None:
    recipe = recipe_yaml.load(None, ["rectify.params={api_key_name: x, top_p: 0.5}"])
    (tmp_path / "recipe.yaml").write_text(recipe_yaml.dump(recipe))
    assert recipe_yaml.load(tmp_path / "recipe.yaml").rectify.params["top_p"] == 0.5
