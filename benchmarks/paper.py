"""The paper's claim at small scale: the gain of each objective, and its cost.

    nox -s paper                                        one to two hours on two cores; run it again to continue
    nox -s paper -- --more                              also the later settings, ``strong`` and after: twice as long
    python benchmarks/paper.py run --folder paper       the same without nox
    python benchmarks/paper.py report --folder paper    tables, and a figure next to the results

All runs of a setting use the same pairs. They are made once, by the starting policy of the setting and the symbolic
oracle; the pairs of the first setting are those of ``recipes/smollm2-135m.yaml``. Each row of ``results.jsonl`` is a
run with the outcome of every problem, so all reported numbers can be computed from it. The phases of the plan:

    base      the untrained policy, with the sampling seeds of the trained ones
    sweep     each objective at three learning rates, those with rewards also at a second beta, at seed 0
    skills    the untrained policy on the test problems, eight more times: how often does it solve each problem?
    seeds     each objective at its best, at two more seeds
    longer    SFT+ and SPoT-BCE at their best with twice the epochs, at seed 0
    strong    a policy that has most of the skill and makes mistakes: the result of SFT+ with twice the epochs, its
              answers to problems that it has not seen, and their corrections; all objectives at their best beta
    again     SFT+ and SPoT-BCE of ``strong`` at two more seeds, and with twice the epochs
    mixed     the strong policy again, SFT on its corrections and on its own right answers, at three seeds
    own       the same on its own right answers only
    wordy     the untrained policy again, in a format with more than twice the tokens per answer

``paper_plan.best`` defines the best run of an objective. No reported number comes from validation problems, and no
expression is in two of the three splits.

Each run measures accuracy on held-out problems, accuracy on families of questions that no run is trained on (two near:
the same sums asked in another way; six far), and drift as ``spot eval`` measures it. Seconds are CPU seconds, because
other work on the machine has priority.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import paper_report
from paper_plan import MIXED, OWN, SKILL_SEEDS, STRONG, Result, Run, longer, plan
from paper_questions import TEST, Question, arithmetic_questions, families, max_new_tokens, with_examples

from spotcli import jsonl, recipe_yaml
from spotcli.appender import Appender
from spotcli.evaluation.tasks import neutral
from spotcli.policies import Answer, Request, Sampling, answer_seed
from spotcli.problems import arithmetic

RECIPE = Path(__file__).parent.parent / "recipes" / "smollm2-135m.yaml"

MODEL = "builtin:smollm2-135m"

BATCH = 160
"""Answers that are generated together."""

STRONG_PROBLEMS = 640
"""Problems of the strong policy: more than of the untrained policy, because it answers fewer wrongly."""


def starting_policy(folder: Path, setting: str) -> str:
    """Return the policy that the runs of a setting start from."""
    return str(folder.resolve() / STRONG / "policy" / "checkpoint") if setting in (STRONG, MIXED, OWN) else MODEL


def prepare(folder: Path, setting: str, teacher: Run) -> None:
    """Make the pairs of a setting and the reference log-probabilities of its starting policy.

    Args:
        folder: the folder of the experiment.
        setting: the setting; its files are in a folder of this name.
        teacher: the run that makes the strong policy.
    """
    from spotcli.stages.rectify import rectify
    from spotcli.stages.sample import sample
    from spotcli.stages.train import train

    where, overrides = folder / setting, [f"model={starting_policy(folder, setting)}"]
    where.mkdir(exist_ok=True)
    if setting in (MIXED, OWN):
        strong = folder / STRONG
        rows = [*(corrections(strong) if setting == MIXED else ()), *own_right_answers(strong)]
        jsonl.write_rows(where / "data.jsonl", rows)
        return
    if setting == STRONG and not (where / "made").exists():
        (where / "policy").mkdir(exist_ok=True)
        train(recipe_yaml.load(RECIPE, settings(teacher)), folder=where / "policy")
        (where / "made").touch()
    if setting:
        limit = recipe_yaml.load(RECIPE).sample.limit
        assert limit is not None
        start, stop = (limit, limit + STRONG_PROBLEMS) if setting == STRONG else (0, limit)
        problems = with_examples(setting, arithmetic.take(0, "train", stop)[start:])
        jsonl.write_rows(where / "problems.jsonl", [problem.model_dump(exclude_none=True) for problem in problems])
        tokens = max_new_tokens(setting)
        overrides += ["sample.problems=problems.jsonl", "sample.limit=null", f"sample.max_new_tokens={tokens}"]
    recipe = recipe_yaml.load(RECIPE, overrides)
    sample(recipe, folder=where)
    rectify(recipe, folder=where)
    # One training step with a reference leaves the file of reference log-probabilities that all runs start from.
    overrides += ["train.max_steps=1", "train.save_strategy='no'", "train.output=first-step"]
    train(recipe_yaml.load(RECIPE, overrides), folder=where)
    shutil.rmtree(where / "first-step")


def corrections(strong: Path) -> Iterator[dict[str, Any]]:
    """Yield the corrected answers of the strong policy as rows for SFT."""
    for row in jsonl.rows(strong / "data.jsonl"):
        yield {key: row[key] for key in ("id", "prompt", "chosen")}


def own_right_answers(strong: Path) -> Iterator[dict[str, Any]]:
    """Yield the strong policy's own right answers as rows for SFT."""
    for row in jsonl.rows(strong / "samples.jsonl"):
        if row["verdict"] == "right":
            yield {"id": row["id"], "prompt": row["prompt"], "chosen": row["response"]}


def settings(run: Run) -> list[str]:
    """Return the overrides of the recipe for a run."""
    return [
        f"seed={run.seed}", f"train.objective={run.objective}", f"train.learning_rate={run.rate}",
        f"train.beta={run.beta or 1.0}", f"train.num_train_epochs={run.epochs}",
        "train.save_strategy='no'", "train.data=../../data.jsonl",
        "train.rounding=nearest",  # as the published results were measured
    ]  # fmt: skip


def execute(folder: Path, run: Run) -> Result:
    """Train and measure one run."""
    from spotcli.stages.train import train

    started, base = cpu_seconds(), starting_policy(folder, run.setting)
    if run.objective == "none":
        if run.seed in SKILL_SEEDS:
            outcomes = {"test": right_answers(base, arithmetic_questions(run.setting)[:TEST], run)}
            return Result(run, outcomes, cpu_seconds() - started)
        outcomes, drift = measure(base, run), measure_drift(base, base)
        return Result(run, outcomes, cpu_seconds() - started, drift)
    where = folder / run.setting
    work = where / "work" / run.key
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    if (where / "reference.jsonl").exists():
        shutil.copy(where / "reference.jsonl", work)
    trained = train(recipe_yaml.load(RECIPE, [f"model={base}", *settings(run)]), folder=work)
    trained_at = cpu_seconds()
    outcomes, drift = measure(trained.checkpoint, run), measure_drift(trained.checkpoint, base)
    shutil.rmtree(work)
    return Result(
        run, outcomes, cpu_seconds() - started, drift, trained.steps, trained.pairs, trained.final,
        train_cpu_seconds=trained_at - started,
    )  # fmt: skip


def measure(model: str, run: Run) -> dict[str, dict[str, int]]:
    """Return the outcomes of a policy on all sets of questions."""
    problems = arithmetic_questions(run.setting)
    outcomes = {
        "test": right_answers(model, problems[:TEST], run),
        "validation": right_answers(model, problems[TEST:], run),
        **{name: right_answers(model, questions, run) for name, questions in families().items()},
    }
    _POLICIES.clear()
    return outcomes


def right_answers(model: str, questions: list[Question], run: Run) -> dict[str, int]:
    """Return 1 for each question with a right answer, else 0; a truncated answer is not right."""
    policy = _policy(model, max_new_tokens(run.setting))
    by_key = {(question.id,): question for question in questions}
    requests = [
        Request(key, question.messages, answer_seed(run.seed, question.id, 0)) for key, question in by_key.items()
    ]
    answers = sorted(_answers(policy, requests), key=lambda answer: str(answer.request.key))
    return {
        answer.request.key[0]: int(
            answer.finish_reason == "stop" and by_key[answer.request.key].is_right(answer.response)
        )
        for answer in answers
    }


def _answers(policy: Any, requests: list[Request]) -> list[Answer]:
    answers = [answer for group in policy.answers(requests, len(requests), lambda request: False) for answer in group]
    assert all(isinstance(answer, Answer) for answer in answers)
    return answers


_POLICIES: dict[str, Any] = {}


def _policy(model: str, tokens: int) -> Any:
    from spotcli.policies.transformers import TransformersPolicy

    if model not in _POLICIES:
        sampling = Sampling(tokens, temperature=0.7, top_p=0.8)
        _POLICIES[model] = TransformersPolicy.load(model, sampling, batch_size=BATCH)
    return _POLICIES[model]


def measure_drift(model: str, base: str) -> float:
    """Return the mean KL(base || model) in nats per token on the neutral prompts, as ``spot eval`` measures it."""
    from spotcli.core.drift import token_kl

    policy = _float32_policy(model)
    total = tokens = 0.0
    for answer, logits in _base_answers(base):
        total += float(token_kl(logits, policy.logits(answer)).sum())
        tokens += answer.tokens
    return total / tokens


def _float32_policy(model: str) -> Any:
    from spotcli.policies.transformers import TransformersPolicy

    sampling = Sampling(neutral.MAX_NEW_TOKENS, temperature=1.0, top_p=1.0)
    return TransformersPolicy.load(model, sampling, batch_size=64, dtype="float32")


@lru_cache(maxsize=1)
def _base_answers(model: str) -> list[tuple[Answer, Any]]:
    """Return the base policy's answers to the neutral prompts with its logits: 350 MB, once per process."""
    base = _float32_policy(model)
    problems = neutral.problems()
    requests = [Request((problem.id,), problem.messages, answer_seed(0, problem.id, 0)) for problem in problems]
    return [(answer, base.logits(answer)) for answer in _answers(base, requests)]


def cpu_seconds() -> float:
    """Return the CPU seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def run_all(folder: Path, *, more: bool, lanes: int) -> None:
    """Run all runs of the plan that have no result yet.

    Args:
        folder: the folder of the experiment.
        more: also run the later settings.
        lanes: processes at a time, with one thread each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    spawn = multiprocessing.get_context("spawn")
    with Appender(folder / "results.jsonl") as file:
        results = paper_report.read_results(file.rows())
        with ProcessPoolExecutor(lanes, mp_context=spawn) as pool:
            ready: set[str] = set()
            for phase in plan(results, more=more):
                if (setting := phase[0].setting) not in ready:
                    teacher = longer(results, "sft") if setting == STRONG else phase[0]
                    pool.submit(prepare, folder, setting, teacher).result()
                    ready.add(setting)
                missing = iter([run for run in phase if run.key not in results])
                running: set[Future[Result]] = {pool.submit(execute, folder, run) for run in islice(missing, lanes)}
                while running:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for result in (future.result() for future in done):
                        file.append([result.row()])
                        results[result.run.key] = result
                        print(time.strftime("%T"), summary(result), flush=True)
                    running |= {pool.submit(execute, folder, run) for run in islice(missing, len(done))}


def summary(result: Result) -> str:
    """Return one line with the scores of a run."""
    scores = {name: sum(right.values()) / len(right) for name, right in result.outcomes.items()}
    text = " ".join(f"{name} {100 * score:.1f}" for name, score in scores.items())
    return f"{result.run.key}: {text} drift {result.drift or 0.0:.5f}, {result.cpu_seconds:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "report"):
        command = commands.add_parser(name)
        command.add_argument("--folder", type=Path, default=Path("paper"), help="folder of the experiment")
        command.add_argument("--more", action="store_true", help="also run the later settings; the report has all")
        command.add_argument("--lanes", type=int, default=2, help="runs at a time, with one thread each")
    options = parser.parse_args()
    if options.command == "run":
        run_all(options.folder, more=options.more, lanes=options.lanes)
    else:
        paper_report.report(options.folder)


if __name__ == "__main__":
    main()
