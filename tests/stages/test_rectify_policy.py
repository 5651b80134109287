"""The policy corrects its own answers: cuts, continuations, the ladder; a scripted policy, and a real model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from spotcli import outputs
from spotcli.errors import SpotError, Unfinished, UserError
from spotcli.policies import Answer, EngineFacts, Failure, Request
from spotcli.policies.models import load_tokenizer
from spotcli.recipe_yaml import load
from spotcli.records import Sample
from spotcli.repair.policy_engine import PolicyEngine
from spotcli.repair.terminal import estimate_sentences
from spotcli.stages.rectify import Action, RectifySummary, rectify
from spotcli.stages.review import review
from tests.conftest import write_rows
from tests.inspection.example_pairs import inspect_file
from tests.tiny_model import teach, write_tiny_model

WRONG = "12 + 30 = 43\n43 - 7 = 36\n\\boxed{36}"
RIGHT = "12 + 30 = 42\n42 - 7 = 35\n\\boxed{35}"


@dataclass
class ScriptedPolicy:
    """Continues a prompt as a function says, which gets the answer so far and the number of the continuation."""

    model: Path
    script: Callable[[str, int], str | None]
    """None: the request fails."""
    engine: str = "transformers"
    background: bool = False
    trials_together: bool = False
    asked: list[tuple[str, int, Request]] = field(default_factory=list)
    """The answer so far, the number of the continuation and the request."""
    batches: list[int] = field(default_factory=list)
    """Requests per call."""
    stopped: bool = False

    def facts(self, first: Request) -> EngineFacts:
        return EngineFacts(prompts=None)

    def answers(
        self, requests: Iterable[Request], total: int, done: Callable[[Request], bool]
    ) -> Iterator[list[Answer | Failure]]:
        tokenizer: Any = load_tokenizer(str(self.model))
        missing = [request for request in requests if not done(request)]
        self.batches.append(len(missing))
        assert len(missing) == total
        for request in missing:
            if request.prefix is None:
                start = "\n".join(message["content"] for message in request.messages)
            else:
                start = tokenizer.decode(request.prefix.ids).rpartition("assistant\n")[2]
            number = request.key[1]
            self.asked.append((start, number, request))
            text = self.script(start, number)
            if text is None:
                yield [Failure(request, "engine crashed")]
                continue
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            yield [Answer(request, text, "stop", [*ids, tokenizer.eos_token_id], len(ids) + 1, 64)]
            if self.stopped:
                return

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None:
        """Nothing runs."""


def wrong(name: str = "a", response: str = WRONG, answer: str = "35", **more: Any) -> dict[str, Any]:
    row = {"id": name, "prompt": f"{name}: 12 + 30 - 7", "answer": answer, "response": response}
    return row | {"finish_reason": "stop", "verdict": "wrong", "extracted": "36", **more}


def samples(folder: Path, model: Path, *rows: dict[str, Any]) -> None:
    write_rows(folder / "samples.jsonl", list(rows))
    meta = {"command": "spot sample", "settings": {"model": str(model)}, "engine": {"name": "transformers"}}
    (folder / "samples.meta.json").write_text(json.dumps(meta))


def ask(folder: Path, policy: ScriptedPolicy | None = None, **options: Any) -> RectifySummary:
    action = Action.of(**{name: options.pop(name) for name in ("dry_run", "replay") if name in options})
    fresh = options.pop("fresh", False)
    keys = {
        f"rectify.{name.replace('__', '.')}": value
        for name, value in {"oracle": "policy", "policy__search": "sweep", **options}.items()
    }
    recipe = load(None, ["rectify.policy.batch_size=16"], keys)
    return rectify(recipe, folder=folder, fresh=fresh, action=action, policy=policy)


def pairs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "data.jsonl").read_text().splitlines()]


def journal(folder: Path) -> list[dict[str, Any]]:
    path = folder / "data.replies.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def repairs_from_the_first_step(start: str, number: int) -> str:
    """Only a continuation from the beginning can be right, and 5 of 8 are."""
    if not start:
        return RIGHT if number < 5 else "12 + 30 = 41\n41 - 7 = 34\n\\boxed{34}"
    return WRONG[len(start) :] if number else WRONG[len(start) :].replace("36", "37")


def test_the_answer_is_cut_before_its_first_wrong_step(tiny_model: Path, tmp_path: Path) -> None:
    samples(tmp_path, tiny_model, wrong())
    policy = ScriptedPolicy(tiny_model, repairs_from_the_first_step)
    summary = ask(tmp_path, policy)
    assert (summary.pairs, summary.reasons, summary.cost) == (1, {}, 0.0)
    row = pairs(tmp_path)[0]
    assert (row["chosen"], row["rejected"], row["verdict"], row["extracted"]) == (RIGHT, WRONG, "right", "35")
    # One token per byte: 13 of y- are before step 2, and 25 before step 3.
    assert row["oracle"]["cut"] == {
        "step": 1,
        "of": 3,
        "tokens": 0,
        "continuations": 8,
        "right_before": 5,
        "right_after": 0,
        "tried": [
            {"step": 3, "tokens": 25, "right": 0, "wrong": 8, "undecided": 0},
            {"step": 2, "tokens": 13, "right": 0, "wrong": 8, "undecided": 0},
            {"step": 1, "tokens": 0, "right": 5, "wrong": 3, "undecided": 0},
        ],
    }
    assert (row["oracle"]["name"], row["oracle"]["reply"], row["oracle"]["cost"]) == ("policy", "plain", 0.0)
    assert policy.batches == [8, 8, 8]
    # What was generated: 8 continuations from each cut, with the end of turn.
    generated = sum(entry["generated"] for entry in journal(tmp_path))
    assert row["oracle"]["usage"] == {"completion_tokens": generated}
    assert summary.oracles == {
        "policy": {"replies": 24, "pairs": 1, "cost": 0.0, "tokens": generated, "cost_per_pair": 0.0}
    }


def test_the_journal_can_be_inspected(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples(tmp_path, tiny_model, wrong())
    ask(tmp_path, ScriptedPolicy(tiny_model, repairs_from_the_first_step))
    review(load(None, None, {}), folder=tmp_path, data=Path("data.replies.jsonl"))
    shown = capsys.readouterr().out
    assert "== 24/24  a  trial 0  attempt 7" in shown
    assert f"completion_tokens {sum(entry['generated'] for entry in journal(tmp_path)):,}" in shown
    assert "12 + 30 = 41" in shown
    inspect_file(tmp_path / "data.jsonl")
    assert "cut before step 1 of 3, right 5/8 before, 0/8 after" in capsys.readouterr().out


def test_a_pair_shares_its_beginning_in_tokens(tiny_model: Path, tmp_path: Path) -> None:
    right_start = "12 + 30 = 42\n"
    response = f"{right_start}42 - 7 = 36\n\\boxed{{36}}"
    samples(tmp_path, tiny_model, wrong(response=response))

    def script(start: str, number: int) -> str:
        return "42 - 7 = 35\n\\boxed{35}" if start == right_start and number == 3 else response[len(start) :]

    policy = ScriptedPolicy(tiny_model, script)
    assert ask(tmp_path, policy).pairs == 1
    row = pairs(tmp_path)[0]
    assert row["chosen"] == RIGHT
    cut = row["oracle"]["cut"]
    assert (cut["step"], cut["of"], cut["tokens"], cut["right_before"], cut["right_after"]) == (2, 3, 13, 1, 0)
    tokenizer: Any = load_tokenizer(str(tiny_model))
    for start, _, request in policy.asked:
        assert request.prefix is not None
        own = tokenizer(start, add_special_tokens=False)["input_ids"]
        assert list(request.prefix.ids[len(request.prefix.ids) - len(own) :]) == own


def test_of_several_corrections_the_closest_is_kept(tiny_model: Path, tmp_path: Path) -> None:
    samples(tmp_path, tiny_model, wrong())
    longer = "Let us see: 12 + 30 = 42\nNow 42 - 7 = 35\n\\boxed{35}"

    def script(start: str, number: int) -> str:
        return WRONG[len(start) :] if start else (longer, RIGHT, longer)[number % 3]

    ask(tmp_path, ScriptedPolicy(tiny_model, script))
    assert pairs(tmp_path)[0]["chosen"] == RIGHT


def test_a_right_continuation_that_is_no_pair_does_not_end_the_search(tiny_model: Path, tmp_path: Path) -> None:
    samples(tmp_path, tiny_model, wrong())

    def script(start: str, number: int) -> str:
        # From the last step only the final answer can change, and no step leads to it.
        return "\\boxed{35}" if start.count("\n") == 2 else repairs_from_the_first_step(start, number)

    policy = ScriptedPolicy(tiny_model, script)
    assert ask(tmp_path, policy).pairs == 1
    cut = pairs(tmp_path)[0]["oracle"]["cut"]
    assert (cut["step"], cut["tried"][0]["right"]) == (1, 8)


def test_all_open_answers_are_in_one_batch(tiny_model: Path, tmp_path: Path) -> None:
    samples(tmp_path, tiny_model, *(wrong(f"p{number}") for number in range(5)))
    policy = ScriptedPolicy(tiny_model, repairs_from_the_first_step)
    assert ask(tmp_path, policy, policy__continuations=2).pairs == 5
    assert policy.batches == [10, 10, 10]
    assert len({request.seed for _, _, request in policy.asked}) == 30


def test_bisection_tries_fewer_cuts(tiny_model: Path, tmp_path: Path) -> None:
    response = "".join(f"Step {number} is here.\n" for number in range(1, 8)) + "\\boxed{36}"
    samples(tmp_path, tiny_model, wrong(response=response))

    def script(start: str, number: int) -> str:
        end = response[len(start) :]
        return end.replace("36", "35").replace("Step 3 is", "Step 3 was") if start.count("\n") <= 2 else end

    swept = ScriptedPolicy(tiny_model, script)
    ask(tmp_path, swept, policy__continuations=1)
    first = pairs(tmp_path)
    halved = ScriptedPolicy(tiny_model, script)
    ask(tmp_path, halved, policy__continuations=1, policy__search="bisect", fresh=True)
    assert first[0]["chosen"] == pairs(tmp_path)[0]["chosen"]
    assert (len(swept.asked), len(halved.asked)) == (6, 3)
    cut = pairs(tmp_path)[0]["oracle"]["cut"]
    assert [(tried["step"], tried["right"]) for tried in cut["tried"]] == [(5, 0), (3, 1), (4, 0)]
    assert (cut["step"], cut["right_before"], cut["right_after"]) == (3, 1, 0)


def test_without_a_right_continuation_the_ladder_goes_on(tiny_model: Path, tmp_path: Path) -> None:
    samples(tmp_path, tiny_model, wrong("a"), wrong("b", answer="1000"))
    policy = ScriptedPolicy(tiny_model, lambda start, number: WRONG[len(start) :])
    summary = ask(tmp_path, policy)
    assert (summary.pairs, summary.reasons) == (0, {"declined: no continuation was right": 2})
    assert [sentence.partition(":")[0] for sentence in summary.advice] == ["2 answers have no right continuation"]
    assert "`--continuations 16`" in summary.advice[0]
    summary = ask(tmp_path, policy, then=["symbolic"])
    # Nothing is generated again.
    assert len(policy.asked) == 2 * 3 * 8
    assert (summary.pairs, summary.reasons) == (1, {"declined: reference differs": 1})
    assert pairs(tmp_path)[0]["oracle"]["name"] == "symbolic"
    assert set(summary.oracles) == {"policy", "symbolic"}


def test_the_policy_can_follow_another_oracle(tiny_model: Path, tmp_path: Path) -> None:
    prose = wrong("b", response="It is 36.\n\\boxed{36}")
    samples(tmp_path, tiny_model, wrong("a"), prose)
    policy = ScriptedPolicy(tiny_model, lambda start, number: "It is 35.\n\\boxed{35}" if not start else "\\boxed{36}")
    summary = ask(tmp_path, policy, oracle="symbolic", then=["policy"])
    assert summary.pairs == 2
    assert [row["oracle"]["name"] for row in pairs(tmp_path)] == ["symbolic", "policy"]
    assert {request.key[0] for _, _, request in policy.asked} == {
        request.key[0] for _, _, request in policy.asked if request.messages[0]["content"].startswith("b:")
    }


def test_a_stricter_filter_generates_only_what_is_missing(tiny_model: Path, tmp_path: Path) -> None:
    samples(tmp_path, tiny_model, wrong(response="Well, 12 + 30 = 42 it is.\n42 - 7 = 36\n\\boxed{36}"))

    def script(start: str, number: int) -> str:
        if start.count("\n") == 2:
            return "\\boxed{36}"
        return "So we take 7 away from that: 42 - 7 = 35\n\\boxed{35}" if start else RIGHT

    policy = ScriptedPolicy(tiny_model, script)
    assert ask(tmp_path, policy, gamma=0.6).pairs == 1
    assert (policy.batches, pairs(tmp_path)[0]["oracle"]["cut"]["step"]) == ([8, 8], 2)
    assert ask(tmp_path, policy, gamma=0.2).pairs == 1
    assert (policy.batches, pairs(tmp_path)[0]["oracle"]["cut"]["step"]) == ([8, 8, 8], 1)
    # Judged again without the policy; the journal alone suffices.
    assert ask(tmp_path, None, gamma=0.6, replay=True).pairs == 1
    assert pairs(tmp_path)[0]["oracle"]["cut"]["step"] == 2


def test_more_continuations_are_added_to_those_that_are_kept(tiny_model: Path, tmp_path: Path) -> None:
    samples(tmp_path, tiny_model, wrong())
    policy = ScriptedPolicy(
        tiny_model, lambda start, number: RIGHT if not start and number == 9 else WRONG[len(start) :]
    )
    assert ask(tmp_path, policy, policy__continuations=4).pairs == 0
    assert ask(tmp_path, policy, policy__continuations=10).pairs == 1
    assert policy.batches == [4, 4, 4, 6, 6, 6]
    seeds = {(start, number): request.seed for start, number, request in policy.asked}
    assert len(seeds) == len(policy.asked) == len(set(seeds.values()))


def test_a_failed_request_is_counted_and_asked_again(tiny_model: Path, tmp_path: Path) -> None:
    samples(tmp_path, tiny_model, wrong("a"), wrong("b"))
    calls: list[int] = []

    def script(start: str, number: int) -> str | None:
        calls.append(number)
        return None if len(calls) == 3 else repairs_from_the_first_step(start, number)

    policy = ScriptedPolicy(tiny_model, script)
    with pytest.raises(Unfinished, match="failed: engine crashed 1"):
        ask(tmp_path, policy)
    assert len(pairs(tmp_path)) == 1
    asked = len(policy.asked)
    assert ask(tmp_path, policy).pairs == 2
    # Of the first round one continuation was missing; the other two rounds of that answer follow.
    assert len(policy.asked) - asked == 1 + 8 + 8


def test_a_target_works_on_few_answers_at_a_time(tiny_model: Path, tmp_path: Path) -> None:
    samples(tmp_path, tiny_model, *(wrong(f"p{number}") for number in range(20)))
    policy = ScriptedPolicy(tiny_model, repairs_from_the_first_step)
    summary = ask(tmp_path, policy, target=3)
    assert (summary.pairs, summary.reasons) == (3, {"not needed": 17})
    # 6 answers are likely to give 3 pairs, before anything is known.
    assert policy.batches == [48, 48, 48]


def test_a_dry_run_bounds_the_tokens(tiny_model: Path, tmp_path: Path) -> None:
    samples(tmp_path, tiny_model, wrong())
    summary = ask(tmp_path, None, dry_run=True)
    assert summary.estimate is not None
    # 35 tokens of y-: 10, 22 and 35 are cut off, and a continuation may have 64, 64 and 70.
    assert summary.estimate.policy_tokens == 8 * (64 + 64 + 70)
    assert (summary.estimate.requests, summary.estimate.likely, summary.estimate.max) == (1, 0.0, 0.0)
    assert estimate_sentences(summary.estimate, None) == [
        "1 wrong answer to ask about. The policy generates at most 1,584 tokens, at no price."
    ]
    assert not (tmp_path / "data.jsonl").exists()
    bisected = ask(tmp_path, None, dry_run=True, policy__search="bisect").estimate
    assert bisected is not None
    assert bisected.policy_tokens == 8 * (70 + 64)


def test_the_policy_can_be_prompted(tiny_model: Path, tmp_path: Path) -> None:
    samples(tmp_path, tiny_model, wrong("a"), wrong("b"))

    def script(prompt: str, number: int) -> str:
        assert "<reference-" in prompt
        fence = prompt.partition("<student-")[2].partition(">")[0]
        return f"<answer-{fence}>\n{RIGHT}\n</answer-{fence}>" if "a: 12" in prompt else "no tags"

    policy = ScriptedPolicy(tiny_model, script)
    summary = ask(tmp_path, policy, oracle="policy-prompted", attempts=2)
    assert (summary.pairs, summary.reasons) == (1, {"unfenced": 1})
    assert policy.batches == [2, 1]
    oracle = pairs(tmp_path)[0]["oracle"]
    assert (oracle["name"], oracle["reply"], oracle["cost"], oracle["model"]) == (
        "policy-prompted",
        "rewrite",
        0.0,
        str(tiny_model),
    )
    # A second run asks nothing.
    assert ask(tmp_path, policy, oracle="policy-prompted", attempts=2).pairs == 1
    assert len(policy.batches) == 2


def test_both_oracles_of_the_policy_share_its_engine(tiny_model: Path, tmp_path: Path) -> None:
    samples(tmp_path, tiny_model, wrong("a"))

    def script(start: str, number: int) -> str:
        fence = start.partition("<student-")[2].partition(">")[0]
        return f"<answer-{fence}>\n{RIGHT}\n</answer-{fence}>" if fence else WRONG[len(start) :]

    policy = ScriptedPolicy(tiny_model, script)
    assert ask(tmp_path, policy, then=["policy-prompted"]).pairs == 1
    assert (policy.batches, pairs(tmp_path)[0]["oracle"]["name"]) == ([8, 8, 8, 1], "policy-prompted")


def test_the_version_names_what_shapes_a_continuation(tiny_model: Path, tmp_path: Path) -> None:
    samples(tmp_path, tiny_model, wrong())
    ask(tmp_path, ScriptedPolicy(tiny_model, repairs_from_the_first_step))
    version = journal(tmp_path)[0]["version"]
    assert version.startswith(f"model={tiny_model}@")
    assert "temperature=1.0, top_p=1.0, top_k=0, seed=0, template=" in version
    assert outputs.read_meta(tmp_path / "data.jsonl")["settings"] == {"oracle": "policy", "version": version}
    with pytest.raises(SpotError, match="made with other settings"):
        ask(tmp_path, ScriptedPolicy(tiny_model, repairs_from_the_first_step), policy__temperature=0.5)


def test_direct_solutions_need_a_prompt(tiny_model: Path, tmp_path: Path) -> None:
    samples(tmp_path, tiny_model, wrong())
    with pytest.raises(UserError, match="requires a model"):
        ask(tmp_path, None, mode="direct")


def test_samples_without_a_model_need_its_name(tmp_path: Path) -> None:
    write_rows(tmp_path / "samples.jsonl", [wrong()])
    with pytest.raises(UserError, match=r"the policy of the samples is unknown"):
        ask(tmp_path, None)
    assert not (tmp_path / "data.jsonl").exists()


def engine(folder: Path, model: Path, *overrides: str) -> PolicyEngine:
    samples(folder, model, wrong())
    return PolicyEngine(load(None, list(overrides), {}), folder / "samples.jsonl")


@pytest.mark.parametrize("response", ["a → b\nc", "naïve 😀 one\n😀 two", "12 = 12. So 7."])
def test_a_cut_is_at_the_end_of_a_token(tiny_model: Path, tmp_path: Path, response: str) -> None:
    own = engine(tmp_path, tiny_model)
    sample = Sample.model_validate(wrong(response=response))
    for start in range(len(response) + 1):
        cut = own.cut(sample, start)
        assert cut.kept == response[: len(cut.kept)]
        # Each character is one or more tokens here, so none has to be given up.
        assert len(cut.kept) == start
        assert cut.removed == len(response.encode()) - len(cut.ids)


def test_a_token_over_the_end_of_a_step_is_cut_off(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model")
    # The tokenizer with one merge: a blank and "N" are one token, as in most vocabularies.
    file = folder / "tokenizer.json"
    values = json.loads(file.read_text())
    values["model"]["merges"] = [["Ġ", "N"]]
    values["model"]["vocab"]["ĠN"] = len(values["model"]["vocab"])
    file.write_text(json.dumps(values))
    own = engine(tmp_path, folder)
    sample = Sample.model_validate(wrong(response="So. Now."))
    assert [own.cut(sample, start).kept for start in (0, 3, 4, 5)] == ["", "So.", "So.", "So. N"]
    # The row's own tokens count, which are not those of the tokenizer here; the end of the turn is none of them.
    tokenizer: Any = load_tokenizer(str(folder))
    emitted = [tokenizer.convert_tokens_to_ids(token) for token in ("S", "o", ".", "Ġ", "N", "o", "w", ".")]
    kept = Sample.model_validate(wrong(response="So. Now.", response_ids=[*emitted, tokenizer.eos_token_id]))
    assert [own.cut(kept, start).kept for start in (3, 4, 8)] == ["So.", "So. ", "So. Now."]


def test_the_engine_is_that_of_the_samples(tiny_model: Path, tmp_path: Path) -> None:
    own = engine(tmp_path, tiny_model)
    assert (own.model, own.engine.name, own.settings.temperature) == (str(tiny_model), "transformers", 1.0)
    # The recipe's keys for sampling count, but not its temperature.
    of_sample = engine(tmp_path, tiny_model, "sample.batch_size=7", "sample.temperature=0.2", "sample.thinking=off")
    assert (of_sample.settings.batch_size, of_sample.settings.temperature) == (7, 1.0)
    assert of_sample.settings.thinking == "off"
    other = engine(tmp_path, tiny_model, "rectify.policy.batch_size=3", "sample.batch_size=7")
    assert other.settings.batch_size == 3


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that has learned to double numbers in two steps."""
    folder = write_tiny_model(tmp_path_factory.mktemp("taught") / "model")
    examples = [(str(number), f"{number} + {number}\n\\boxed{{{2 * number}}}") for number in range(1, 9)]
    teach(folder, examples, steps=300, batch=8)
    return folder


def doubled(folder: Path, model: Path, count: int = 8) -> None:
    rows = [
        wrong(str(number), f"{number} + {number + 1}\n\\boxed{{{2 * number + 1}}}", str(2 * number), prompt=str(number))
        for number in range(1, count + 1)
    ]
    samples(folder, model, *rows)


def test_a_real_model_continues_its_own_answers(taught: Path, tmp_path: Path) -> None:
    doubled(tmp_path, taught)
    summary = ask(tmp_path, None, policy__continuations=4, policy__temperature=0.7, gamma=1.0)
    assert summary.pairs >= 4, summary.reasons
    assert summary.pairs + sum(summary.reasons.values()) == 8
    for row in pairs(tmp_path):
        cut = row["oracle"]["cut"]
        assert row["chosen"][: cut["tokens"]] == row["rejected"][: cut["tokens"]]
        assert row["verdict"] == "right"
    entries = journal(tmp_path)
    # A second run generates nothing, and writes the same file.
    before = (tmp_path / "data.jsonl").read_bytes()
    ask(tmp_path, None, policy__continuations=4, policy__temperature=0.7, gamma=1.0)
    assert (journal(tmp_path), (tmp_path / "data.jsonl").read_bytes()) == (entries, before)


def test_a_killed_command_loses_nothing(taught: Path, tmp_path: Path) -> None:
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    for folder in (calm, rough):
        folder.mkdir()
        doubled(folder, taught)
    options = {"policy__continuations": 24, "gamma": 1.0}
    ask(calm, None, **options)
    command = [sys.executable, "-m", "spotcli", "rectify", "--oracle", "policy", "--gamma", "1"]
    command += ["--continuations", "24", "--search", "sweep", "-s", "rectify.policy.batch_size=16"]
    with subprocess.Popen(command, cwd=rough, stderr=subprocess.PIPE, text=True) as process:
        while len(journal_lines(rough)) < 1 and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        talk = process.communicate()[1]
    assert process.returncode == -signal.SIGKILL, talk
    kept = journal_lines(rough)
    assert 0 < len(kept) < len(journal_lines(calm))
    ask(rough, None, **options)
    assert journal_lines(rough)[: len(kept)] == kept
    # No continuation twice, none missing, and each as without the kill.
    assert sorted(map(without_time, journal(rough))) == sorted(map(without_time, journal(calm)))
    assert [row["chosen"] for row in pairs(rough)] == [row["chosen"] for row in pairs(calm)]


def test_ctrl_c_keeps_what_is_finished(tiny_model: Path, tmp_path: Path) -> None:
    samples(tmp_path, tiny_model, *(wrong(f"p{number}") for number in range(3)))

    def script(start: str, number: int) -> str:
        if len(policy.asked) == 30:
            os.kill(os.getpid(), signal.SIGINT)
        return repairs_from_the_first_step(start, number)

    policy = ScriptedPolicy(tiny_model, script)
    with pytest.raises(Unfinished, match="stopped; 0 pairs"):
        ask(tmp_path, policy)
    assert (policy.batches, len(journal(tmp_path))) == ([24, 24], 30)
    policy.stopped = False
    assert ask(tmp_path, policy).pairs == 3
    assert (policy.batches, len(journal(tmp_path))) == ([24, 24, 18, 24], 72)


def journal_lines(folder: Path) -> list[bytes]:
    path = folder / "data.replies.jsonl"
    return (
        [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")] if path.exists() else []
    )


def without_time(entry: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in entry.items() if name != "at"}, sort_keys=True)
