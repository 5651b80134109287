"""The bill before and during a run: estimates, their correction by replies, and what a limit pays for."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from spotcli.errors import BudgetReached
from spotcli.providers.token_limits import REASONING, likely_reasoning
from spotcli.recipe_yaml import load
from spotcli.records import Sample
from spotcli.repair.cases import Case, History, JudgedReply
from spotcli.repair.cost_estimate import CostEstimate
from spotcli.repair.judge import ACCEPTED, Correction
from spotcli.repair.projection import REPLY_WEIGHT, REQUEST_CHARACTERS, CostProjection
from spotcli.repair.terminal import estimate_sentences
from spotcli.reply_entries import ReplyEntry
from spotcli.stages.rectify import Action, RectifySummary, rectify
from tests.conftest import write_rows
from tests.fake_provider import FakeProvider, Step

LISTED = {"supports_reasoning": True}


@pytest.mark.parametrize(
    ("model", "listed", "parameters", "tokens"),
    [
        ("gpt-4o", {}, {}, 0),
        ("gpt-5", LISTED, {}, REASONING),
        ("gpt-5", LISTED, {"reasoning_effort": "low"}, 1_000),
        ("gpt-5", LISTED, {"reasoning_effort": "none"}, 0),
        ("gpt-5.1", LISTED, {}, 0),  # its default effort is none
        ("claude-sonnet-4-5", LISTED, {}, 0),
        ("claude-sonnet-4-5", LISTED, {"thinking": {"type": "enabled", "budget_tokens": 2_000}}, 2_000),
        ("claude-sonnet-4-5", LISTED, {"thinking": {"type": "enabled", "budget_tokens": 60_000}}, REASONING),
        ("claude-sonnet-4-5", LISTED, {"thinking": {"type": "disabled"}}, 0),
        ("gemini/gemini-2.5-flash", LISTED, {}, REASONING),
        ("gemini/gemini-2.5-flash-lite", LISTED, {}, 0),
        ("openrouter/deepseek/deepseek-r1", {}, {}, REASONING),
        ("openrouter/openai/gpt-oss", {}, {"reasoning": {"effort": "high"}}, 12_000),
        ("hosted_vllm/Qwen/QwQ-32B", {}, {}, REASONING),
        ("gpt-4o", {}, {"reasoning_effort": 7}, 0),
    ],
)
def test_reasoning_is_assumed_by_the_kind_of_model(
    model: str, listed: dict[str, Any], parameters: dict[str, Any], tokens: int
) -> None:
    assert likely_reasoning(model, listed, parameters) == tokens


def test_an_estimate_in_sentences() -> None:
    plain = CostEstimate(1000, likely=0.5, max=51.65, worst_request=0.005)
    # After 0.005 is left for the worst case of the last one: (0.01 - 0.005) / (0.5 / 1000) + 1 = 11.
    assert estimate_sentences(plain, 0.01) == [
        "1,000 wrong answers to ask about: about $0.50, at most $51.65.",
        "--max-cost 0.01 would pay for 11 of 1,000.",
    ]
    assert estimate_sentences(plain, 0.004)[-1] == "--max-cost 0.004 would pay for 0 of 1,000."
    assert estimate_sentences(plain, 2.0)[-1] == "--max-cost 2 is likely to be enough."
    thinking = CostEstimate(1, reasoning_tokens=4000, likely=0.0401, max=None)
    assert estimate_sentences(thinking, None)[0].endswith("about $0.0401, without a known limit.")
    assert "includes 4,000 reasoning tokens per reply" in estimate_sentences(thinking, None)[1]
    known = CostEstimate(10, likely=1.0, max=2.0, decided=40, correction=3.2, spent=0.75, worst_request=0.1)
    assert estimate_sentences(known, 1.0)[1:] == [
        "This rests on 40 decided answers, which cost 3.2 times what their lengths let expect.",
        # (0.25 - 0.1) / 0.1 + 1 = 2.5
        "--max-cost 1 ($0.75 of it are spent) would pay for 2 of 10.",
    ]
    unknown = CostEstimate(2, prompt_tokens=1500, reply_tokens=80, likely=None, max=None)
    assert "set rectify.price_in and rectify.price_out" in estimate_sentences(unknown, None)[0]
    assert estimate_sentences(CostEstimate(), 1.0) == ["All wrong answers have their replies: no request is needed."]


def case(number: int, length: int) -> Case:
    row = {"id": f"row-{number}", "prompt": "?" * 100, "response": "x" * length, "answer": "1", "verdict": "wrong"}
    return Case(Sample.model_validate(row))


def reply(of: Case, cost: float | None) -> ReplyEntry:
    return ReplyEntry(
        key=of.sample.id, id=of.sample.id, trial=0, sample=of.digest, attempt=0, oracle="o", version="", prompt="",
        mode="rewrite", fence="", text="", finish_reason="stop", cost=cost,
    )  # fmt: skip


def decide(of: Case, entry: ReplyEntry, history: History, projection: CostProjection) -> None:
    history.add(entry)
    of.decided = JudgedReply(entry, Correction(ACCEPTED))
    projection.decide(of)


def test_the_projection_is_in_proportion_to_the_sizes() -> None:
    cases = [case(number, 100 if number < 20 else 400) for number in range(40)]
    history = History()
    projection = CostProjection(cases, history)
    for item in cases[:9]:
        decide(item, reply(item, 0.01), history, projection)
    assert projection.total is None  # too few
    for item in cases[9:20]:
        decide(item, reply(item, 0.01), history, projection)
    small = REQUEST_CHARACTERS + 100 + REPLY_WEIGHT * 100
    large = REQUEST_CHARACTERS + 100 + REPLY_WEIGHT * 400
    assert projection.total == pytest.approx(20 * 0.01 * (1 + large / small))
    # 2,500 and 3,700 characters: 0.2 x (1 + 3,700 / 2,500) = 0.496 for 40 answers; 0.25 pays for 20.16 of them.
    assert projection.affordable(0.25) == 20
    assert projection.affordable(1.0) == 40


def test_cheap_replies_that_come_first_do_not_lower_the_projection() -> None:
    cases = [case(number, 100) for number in range(100)]
    history = History()
    projection = CostProjection(cases, history)
    # Every tenth answer costs ten times as much, and comes late: those before 20 have come, and cheap ones after them.
    for number in [*range(20), *(number for number in range(20, 60) if number % 10)]:
        cost = 0.10 if number % 10 == 0 else 0.01
        decide(cases[number], reply(cases[number], cost), history, projection)
    # Of the first 20, 2 x 0.10 + 18 x 0.01 = 0.38, so 0.019 each; 0.38 + 36 x 0.01 are spent, 44 are left.
    assert projection.total == pytest.approx(0.38 + 0.36 + 44 * 0.019)


def test_a_reply_without_a_price_ends_the_projection() -> None:
    cases = [case(number, 100) for number in range(20)]
    history = History()
    projection = CostProjection(cases, history)
    for number, item in enumerate(cases):
        decide(item, reply(item, None if number == 12 else 0.01), history, projection)
    assert projection.total is None


ROWS = 200


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789abcdef")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    write_rows(tmp_path / "samples.jsonl", [wrong(number) for number in range(ROWS)])
    return tmp_path


def tag(number: int) -> str:
    return f"row-{number:04d}"


def wrong(number: int) -> dict[str, Any]:
    steps = "".join(f"{step} + 1 = {step + 1}\n" for step in range(number % 7))
    return {
        "id": tag(number), "prompt": f"{tag(number)}: what is {number} + 2?", "answer": str(number + 2),
        "response": f"{steps}{number} + 2 = {number + 3}\nThe answer is \\boxed{{{number + 3}}}.", "verdict": "wrong",
    }  # fmt: skip


def script(chance: random.Random, thinking: bool) -> dict[str, list[Step]]:
    """Right replies; of a reasoning model, with 500 to 8,000 tokens of reasoning, and one in seven is asked twice."""
    steps: dict[str, list[Step]] = {}
    for number in range(ROWS):
        row = wrong(number)
        text = row["response"].replace(str(number + 3), str(number + 2)) if number else "0 + 2 = 2\n\\boxed{2}"
        reasoning = chance.randint(500, 8000) if thinking else 0
        usage = {"prompt_tokens": 420 + len(row["response"]) // 4, "completion_tokens": reasoning + len(text) // 4}
        good: Step = {"text": f"<answer-{{fence}}>\n{text}\n</answer-{{fence}}>", "usage": usage}
        bad: Step = {"text": text, "usage": usage}
        steps[tag(number)] = [bad, good] if chance.random() < 1 / 7 else [good]
    return steps


def ask(folder: Path, provider: FakeProvider, *, dry_run: bool = False, **options: Any) -> RectifySummary:
    values = {"oracle": "gpt-4o", "base_url": provider.base_url, "price_in": 1.0, "price_out": 10.0, "attempts": 2}
    values |= {"max_tokens": 10_000, "gamma": 1.0} | options
    recipe = load(None, None, {f"rectify.{name}": value for name, value in values.items()})
    return rectify(recipe, folder=folder, action=Action.of(dry_run=dry_run))


@pytest.mark.parametrize("thinking", [False, True])
def test_the_estimate_after_5_percent_is_close_to_the_bill(thinking: bool, surroundings: Path) -> None:
    with FakeProvider(script(random.Random(3), thinking)) as provider:
        first = ask(surroundings, provider, dry_run=True).estimate
        # 5 % of the rows, with as many again in flight.
        ask(surroundings, provider, target=20, concurrency=1)
        summary = ask(surroundings, provider, dry_run=True)
        estimate, spent = summary.estimate, summary.cost
        bill = ask(surroundings, provider).cost
    assert first is not None
    assert first.likely is not None
    assert estimate is not None
    assert estimate.likely is not None
    assert estimate.decided >= 20
    assert spent + estimate.likely == pytest.approx(bill, rel=0.2)
    # gpt-4o does not reason, so the first estimate of the replies that do is far too low.
    assert (first.likely < bill / 5) == thinking


def test_a_limit_that_will_not_do_is_told_early(surroundings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeProvider(script(random.Random(3), thinking=True)) as provider, pytest.raises(BudgetReached):
        ask(surroundings, provider, max_cost=2.0, concurrency=2)
    shown = " ".join(capsys.readouterr().err.split())
    assert shown.count("at the cost so far") == 1
    assert "--max-cost 2 pays for" in shown
    assert "of 200 answers" in shown


def test_first_requests_share_their_beginning(surroundings: Path) -> None:
    with FakeProvider(script(random.Random(3), thinking=False)) as provider:
        ask(surroundings, provider, target=10)
        bodies = [request["body"]["messages"] for request in provider.requests]
    firsts = [body for body in bodies if "This was tried before" not in body[1]["content"]]
    assert len(firsts) >= 10
    assert len({body[0]["content"] for body in firsts}) == 1  # a provider's cache can serve the instructions


def test_cached_prompt_tokens_cost_less(surroundings: Path) -> None:
    def cost(cached: int) -> float:
        usage = {"prompt_tokens": 2000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": cached}}
        steps = script(random.Random(0), thinking=False)
        with FakeProvider(
            {key: [step | {"usage": usage} for step in value] for key, value in steps.items()}
        ) as provider:
            return ask(
                surroundings, provider, target=1, concurrency=1, price_in=None, price_out=None, output=f"{cached}.jsonl"
            ).cost

    # litellm's prices of gpt-4o: $2.50 per million prompt tokens, $1.25 if cached, $10 per million reply tokens.
    assert cost(0) == pytest.approx(2000 * 2.5e-6 + 100 * 1e-5)
    assert cost(1500) == pytest.approx(500 * 2.5e-6 + 1500 * 1.25e-6 + 100 * 1e-5)
