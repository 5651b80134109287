"""The paper's claim at small scale: the gain of each objective, and its cost.

    nox -s paper                                        two and a half hours on one core; run it again to continue
    nox -s paper -- --more                              also what completes the picture: three times as long
    python benchmarks/paper.py run --folder paper       the same without nox
    python benchmarks/paper.py report --folder paper    the tables of the runs so far, and a figure next to the results

Two starting policies. The *untrained* one lacks most of the skill; its pairs are those of
``recipes/smollm2-135m.yaml``. The *strong* one has most of it and makes mistakes: it is the result of SFT+ on those
pairs in four epochs (``paper_plan.TEACHER``), and has answered problems that it had not seen. All runs of a setting
train on the same rows:

    (empty)    the untrained policy and its pairs
    mixed      the strong policy, its corrections, and its own right answers as rows without y-
    strong     the strong policy and its corrections only
    own        the strong policy and its own right answers only
    wordy      the untrained policy, in a format with more than twice the tokens per answer

Each row of ``results.jsonl`` is a run with the outcome of every problem, so all reported numbers can be computed from
it. ``paper_plan.plan`` has the phases. The settings are fixed in advance, so no reported number chose a setting.

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
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path
from typing import Any

import paper_report
from paper_plan import MIXED, OWN, STRONG, TEACHER, Result, Run, plan
from paper_questions import Question, arithmetic_questions, families, max_new_tokens, with_examples

from spotcli import jsonl, recipe_yaml
from spotcli.appender import Appender
from spotcli.evaluation.tasks import neutral
from spotcli.policies import Answer, Request, Sampling, answer_seed
from spotcli.problems import arithmetic

RECIPE = Path(__file__).parent.parent / "recipes" / "smollm2-135m.yaml"

MODEL = "builtin:smollm2-135m"

BATCH = 80
"""Answers that are generated together."""

STRONG_PROBLEMS = 320
"""Problems that the strong policy answers."""

STRONG_STEP = 8
"""Rows per training step of the strong policy; the untrained one has those of the recipe."""


def starting_policy(folder: Path, setting: str) -> str:
    """Return the policy that the runs of a setting start from."""
    return str(folder.resolve() / STRONG / "policy" / "checkpoint") if setting in (STRONG, MIXED, OWN) else MODEL


def prepare(folder: Path, setting: str) -> None:
    """Make the rows of a setting and the reference log-probabilities of its starting policy.

    Args:
        folder: the folder of the experiment.
        setting: the setting; its files are in a folder of this name.
    """
    from spotcli.stages.rectify import rectify
    from spotcli.stages.sample import sample
    from spotcli.stages.train import train

    where, overrides = folder / setting, [f"model={starting_policy(folder, setting)}"]
    if (where / "prepared").exists():
        return
    where.mkdir(exist_ok=True)
    if setting in (MIXED, OWN):
        prepare(folder, STRONG)
        overrides += [f"rectify.samples=../{STRONG}/samples.jsonl", f"rectify.keep={STRONG_PROBLEMS}"]
    elif setting == STRONG:
        prepare(folder, "")
        if not (where / "made").exists():
            (where / "policy").mkdir(exist_ok=True)
            train(recipe_yaml.load(RECIPE, settings(TEACHER)), folder=where / "policy")
            (where / "made").touch()
    if setting not in ("", MIXED, OWN):
        limit = recipe_yaml.load(RECIPE).sample.limit
        assert limit is not None
        start, stop = (limit, limit + STRONG_PROBLEMS) if setting == STRONG else (0, limit)
        problems = with_examples(setting, arithmetic.take(0, "train", stop)[start:])
        jsonl.write_rows(where / "problems.jsonl", [problem.model_dump(exclude_none=True) for problem in problems])
        tokens = max_new_tokens(setting)
        overrides += ["sample.problems=problems.jsonl", "sample.limit=null", f"sample.max_new_tokens={tokens}"]
    recipe = recipe_yaml.load(RECIPE, overrides)
    if setting not in (MIXED, OWN):
        sample(recipe, folder=where)
    rectify(recipe, folder=where)
    if setting == OWN:
        rows = [row for row in jsonl.rows(where / "data.jsonl") if row.get("rejected") is None]
        jsonl.write_rows(where / "data.jsonl", rows)
    # One training step with a reference leaves the file of reference log-probabilities that all runs start from. Rows
    # with the log-probability of each kept token have keys of their own.
    for kept_kl in (0, 1) if setting == MIXED else (0,) if setting != OWN else ():
        options = [f"train.kept_kl={kept_kl}", "train.max_steps=1", "train.save_strategy='no'"]
        train(recipe_yaml.load(RECIPE, [*overrides, *options, "train.output=first-step"]), folder=where)
        shutil.rmtree(where / "first-step")
    (where / "prepared").touch()


def settings(run: Run) -> list[str]:
    """Return the overrides of the recipe for a run."""
    return [
        f"seed={run.seed}", f"train.objective={run.objective}", f"train.learning_rate={run.rate}",
        f"train.beta={run.beta or 1.0}", f"train.num_train_epochs={run.epochs}", "train.save_strategy='no'",
        "train.data=../../data.jsonl", "train.displacement_every=never",
        *([f"train.per_device_train_batch_size={STRONG_STEP}"] if run.setting in (STRONG, MIXED, OWN) else []),
        *(f"train.{option}" for option in run.options.split()),
    ]  # fmt: skip


def execute(folder: Path, run: Run) -> Result:
    """Train and measure one run."""
    from spotcli.stages.train import train

    started, base = cpu_seconds(), starting_policy(folder, run.setting)
    if run.objective == "none":
        return Result(run, measure(base, run), cpu_seconds() - started)
    where = folder / run.setting
    work = where / "work" / run.key
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    if (where / "reference.jsonl").exists():
        shutil.copy(where / "reference.jsonl", work)
    trained = train(recipe_yaml.load(RECIPE, [f"model={base}", *settings(run)]), folder=work)
    trained_at = cpu_seconds()
    outcomes = measure(trained.checkpoint, run)
    drift = None if run.seed else measure_drift(trained.checkpoint, base)
    shutil.rmtree(work)
    return Result(
        run, outcomes, cpu_seconds() - started, drift, trained.steps, trained.pairs, trained.final,
        train_cpu_seconds=trained_at - started,
    )  # fmt: skip


def measure(model: str, run: Run) -> dict[str, dict[str, int]]:
    """Return the outcomes of a policy on all sets of questions."""
    sets = {"test": arithmetic_questions(run.setting), **families()}
    right = right_answers(model, [question for questions in sets.values() for question in questions], run)
    return {name: {question.id: right[question.id] for question in questions} for name, questions in sets.items()}


def right_answers(model: str, questions: list[Question], run: Run) -> dict[str, int]:
    """Return 1 for each question with a right answer, else 0; a truncated answer is not right."""
    from spotcli.policies.transformers import TransformersPolicy

    sampling = Sampling(max_new_tokens(run.setting), temperature=0.7, top_p=0.8)
    policy = TransformersPolicy.load(model, sampling, batch_size=BATCH)
    by_key = {(question.id,): question for question in questions}
    requests = [
        Request(key, question.messages, answer_seed(run.seed, question.id, 0)) for key, question in by_key.items()
    ]
    return {
        answer.request.key[0]: int(
            answer.finish_reason == "stop" and by_key[answer.request.key].is_right(answer.response)
        )
        for answer in _answers(policy, requests)
    }


def _answers(policy: Any, requests: list[Request]) -> list[Answer]:
    answers = [answer for group in policy.answers(requests, len(requests), lambda request: False) for answer in group]
    assert all(isinstance(answer, Answer) for answer in answers)
    return answers


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
    """Return the base policy's answers to the neutral prompts with its logits: 350 MB."""
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
        more: also run the phases that complete the picture.
        lanes: processes at a time, with one thread each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    spawn = multiprocessing.get_context("spawn")
    with Appender(folder / "results.jsonl") as file:
        results = paper_report.read_results(file.rows())
        # A process per run, because memory that training has freed is not all given back.
        with ProcessPoolExecutor(lanes, mp_context=spawn, max_tasks_per_child=1) as pool:
            for phase in plan(more=more):
                missing = [run for run in phase if run.key not in results]
                for setting in dict.fromkeys(run.setting for run in missing):
                    pool.submit(prepare, folder, setting).result()
                for future in as_completed([pool.submit(execute, folder, run) for run in missing]):
                    result = future.result()
                    file.append([result.row()])
                    results[result.run.key] = result
                    print(time.strftime("%T"), summary(result), flush=True)


def summary(result: Result) -> str:
    """Return one line with the scores of a run."""
    scores = {name: sum(right.values()) / len(right) for name, right in result.outcomes.items()}
    text = " ".join(f"{name} {100 * score:.1f}" for name, score in scores.items())
    drift = "" if result.drift is None else f" drift {result.drift:.5f}"
    return f"{result.run.key}: {text}{drift}, {result.train_cpu_seconds or 0:.0f} of {result.cpu_seconds:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "report"):
        command = commands.add_parser(name)
        command.add_argument("--folder", type=Path, default=Path("paper"), help="folder of the experiment")
        command.add_argument("--more", action="store_true", help="also run what completes the picture")
        command.add_argument("--lanes", type=int, default=1, help="runs at a time, with one thread and 4 to 5 GB each")
    options = parser.parse_args()
    if options.command == "run":
        run_all(options.folder, more=options.more, lanes=options.lanes)
    else:
        paper_report.report(options.folder)


if __name__ == "__main__":
    main()
