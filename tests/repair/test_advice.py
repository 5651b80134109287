"""What is proposed at the end of a run, from the reasons why answers did not become pairs."""

from __future__ import annotations

from typing import Any

from spotcli.oracles.by_name import create
from spotcli.recipe import RectifySection
from spotcli.records import Sample
from spotcli.repair.advice import advice
from spotcli.repair.cases import Case, JudgedReply
from spotcli.repair.judge import Correction
from spotcli.repair.ladder import Ladder
from spotcli.reply_entries import ReplyEntry


def case(number: int, reason: str, ratio: float | None = None) -> Case:
    row = {"id": f"row-{number}", "prompt": "1 + 1?", "response": "3", "answer": "2", "verdict": "wrong"}
    result = Case(Sample.model_validate(row))
    entry = ReplyEntry(
        key="", id=result.sample.id, trial=0, sample=result.digest, attempt=0, oracle="o", version="", prompt="",
        mode="rewrite", fence="", text="", finish_reason="stop",
    )  # fmt: skip
    result.decided = JudgedReply(entry, Correction(reason, change_ratio=ratio))
    return result


def advise(cases: list[Case], **options: Any) -> list[str]:
    settings = RectifySection(oracle="gpt-4o", **options)
    ladder = Ladder.of(settings, [create(name, settings) for name in ("gpt-4o", *settings.then)])
    return advice(cases, settings, ladder)


def test_a_larger_gamma_keeps_at_least_half() -> None:
    # Sorted: 0.62, 0.68, 0.9. Half of three is two, so 0.68 and, rounded up, 0.7.
    cases = [case(number, "too large", ratio) for number, ratio in enumerate((0.9, 0.62, 0.68))]
    assert advise(cases) == [
        "3 corrections are too large: `--gamma 0.7` would keep 2 of them, at no cost with `--replay`"
    ]
    assert "`--gamma 0.7` would keep 1 of them" in advise([case(0, "too large", 0.7)])[0]
    assert "`--gamma 1` would keep 1 of them" in advise([case(0, "too large", 1.0)])[0]


def test_every_reason_names_its_option_once() -> None:
    reasons = [
        "unfenced",
        "unclosed",
        "wrong",
        "unchanged",
        "wrong",
        "length",
        "too much deleted",
        "declined",
        "accepted",
    ]
    sentences = advise([case(number, reason) for number, reason in enumerate(reasons)], max_tokens=1000)
    assert sentences == [
        "1 correction lacks more than 80% of the wrong answer: a larger `-s rectify.max_deleted` keeps such ones, at "
        "no cost with `--replay`",
        "1 reply was cut at the token limit: `--max-tokens 2000` asks again",
        "2 replies have an error in the form: `--attempts 2` asks again, with the error",
        "3 corrections are still wrong: `--attempts 2` asks again, and `--then MODEL` asks another oracle",
    ]


def test_after_all_attempts_another_oracle_is_proposed() -> None:
    cases = [case(0, "unfenced"), case(1, "wrong")]
    assert advise(cases, attempts=3) == [
        "1 reply has an error in the form after 3 attempts: `--then MODEL` asks another oracle",
        "1 correction is still wrong after 3 attempts: `--then MODEL` or `--export FILE` (a person) can go on",
    ]
    assert len(advise(cases, attempts=3, then=["human"])) == 1


def test_nothing_is_proposed_for_an_oracle_that_computes() -> None:
    settings = RectifySection(oracle="symbolic")
    ladder = Ladder.of(settings, [create("symbolic", settings)])
    assert advice([case(0, "wrong"), case(1, "declined: no sum")], settings, ladder) == []
    assert advise([]) == []
