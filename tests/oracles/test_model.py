"""The oracle that prompts a model at a provider."""

from __future__ import annotations

import asyncio

import pytest

from spotcli.core.oracle_prompts import OraclePrompt
from spotcli.errors import UserError
from spotcli.oracles import CorrectionRequest
from spotcli.oracles.by_name import create
from spotcli.oracles.model import ModelOracle
from spotcli.recipe import RectifySection
from spotcli.records import Sample
from tests.fake_provider import FakeProvider

SAMPLE = Sample(id="a", prompt="1 + 1", answer="2", response="\\boxed{3}", verdict="wrong")
PROMPT = OraclePrompt(messages=[{"role": "user", "content": "hello"}])


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789abcdef")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_the_prompt_is_sent_with_the_recipes_parameters() -> None:
    with FakeProvider({"hello": [{"text": "hi"}]}) as provider:
        oracle = ModelOracle(
            "gpt-4o",
            RectifySection(base_url=provider.base_url, temperature=0.3, max_tokens=77, params={"top_p": 0.9}),
        )

        async def work() -> str:
            try:
                return (await oracle.correct(CorrectionRequest(SAMPLE, PROMPT, max_tokens_factor=2))).text
            finally:
                await oracle.close()

        assert asyncio.run(work()) == "hi"
    body = provider.requests[0]["body"]
    # A factor of 2 is twice the tokens.
    assert (body["temperature"], body["max_tokens"], body["top_p"]) == (0.3, 154, 0.9)


def test_the_version_does_not_depend_on_the_token_limit() -> None:
    # A complete reply is the same under any limit.
    assert (
        ModelOracle("gpt-4o", RectifySection(max_tokens=5)).version == ModelOracle("gpt-4o", RectifySection()).version
    )
    assert ModelOracle("gpt-4o", RectifySection(temperature=0.5)).version == "temperature=0.5"


def test_the_worst_cost_is_that_of_the_longest_reply() -> None:
    oracle = ModelOracle("gpt-4o", RectifySection(price_in=1.0, price_out=10.0, max_tokens=1000))
    # 5 bytes and 16 around them are 21 tokens at most: 0.000021; 2,000 reply tokens: 0.02
    request = CorrectionRequest(SAMPLE, PROMPT, max_tokens_factor=2)
    assert oracle.worst_cost(request) == pytest.approx(0.020021)


def test_an_unknown_oracle_is_named_with_the_known_ones() -> None:
    oracle = create("nonsense", RectifySection())
    assert isinstance(oracle, ModelOracle)
    with pytest.raises(UserError, match=r"rectify\.oracle: unknown model 'nonsense'") as caught:
        oracle.check_environment()
    assert "`symbolic`, `human`" in str(caught.value)
