"""problems -> samples: the policy answers every problem, and every answer is graded.

    spot sample builtin:arithmetic --model builtin:smollm2-135m

Answers are appended as soon as they are finished, with their verdict, and a second run answers only what is missing. An
answer that reached the token limit is undecided: it is no evidence of a mistake. A request without an answer is a
failure, and the next run retries it. Problems are a stream, so there can be millions. This stage neither selects among
answers nor repairs them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spotcli import files, outputs
from spotcli.answering.answered import Answered, Work
from spotcli.answering.engine import Engine, recorded_parameters, report_facts
from spotcli.answering.graded import RowSettings, graded_answers
from spotcli.answering.journal import AnswerJournal, KeptAnswer
from spotcli.answering.loop import Answering
from spotcli.console import say
from spotcli.errors import RecipeError
from spotcli.evaluation.held_out import Evaluations
from spotcli.grading.kinds import grader_of
from spotcli.locks import check_free
from spotcli.policies import Policy, Sampling
from spotcli.policies.models import plain_name
from spotcli.recipe import Recipe
from spotcli.records import Sample
from spotcli.sampling import shards
from spotcli.sampling.foreign_answers import GradeSummary, grade_file
from spotcli.sampling.problem_set import Counted, HeldOut, ProblemSet, count_remaining, read_counted, recorded
from spotcli.sampling.shards import MergeSummary, Shard
from spotcli.sampling.summary import SampleSummary, summarise

__all__ = ["GradeSummary", "MergeSummary", "SampleSummary", "Shard", "grade_file", "merge_shards", "sample"]

ROUND = 4096
"""Problems whose first trials come before their second ones, for an engine without ``trials_together``."""


def sample(
    recipe: Recipe,
    *,
    folder: Path = Path(),
    fresh: bool = False,
    shard: Shard | None = None,
    decontaminated: bool = False,
    policy: Policy | None = None,
) -> SampleSummary:
    """Have the policy answer every problem ``sample.trials`` times.

    Args:
        recipe: the whole recipe.
        folder: for relative paths.
        fresh: set an existing file aside and start over.
        shard: answer only this part of the problems, into a file of its own.
        decontaminated: exclude problems of the recipe's evaluation tasks, as ``sample.decontaminate`` does.
        policy: use this policy instead of the engine of the recipe.

    Raises:
        RecipeError: `model` is missing.
        UserError: the problems or the model are not found, or another process writes the output.
        SettingsChanged: the output was made with other settings.
        Unfinished: the run was stopped, or requests failed; the same command resumes.
    """
    started = time.monotonic()
    plan = _plan(recipe, folder, shard, fresh=fresh, decontaminated=decontaminated, policy=policy)
    answered = Answered(lambda row: (row["id"], row.get("trial", 0)))
    with _open(plan, answered, fresh=fresh) as output, _journal(plan, output) as journal:
        answering = Answering(output, journal, answered, _grading(plan))
        answering.grade_kept()
        remaining = count_remaining(plan.problems, answered, plan.counted)
        output.note(asked=plan.asked, counted=asdict(plan.problems.counted(remaining.others)))
        work = Work(remaining.missing)
        if remaining.missing:
            if len(answered):
                say(f"{output.path}: resuming with {len(answered)} answers, {remaining.missing} remain")
            _load_and_answer(plan, output, answering, work)
        summary = summarise(output.path, plan.engine.name, plan.problems, answered, work, started=started)
        output.finish(summary.counts(), complete=not summary.failed and not summary.remaining)
    summary.warn_about_reasoning()
    summary.raise_if_unfinished()
    return summary


def merge_shards(recipe: Recipe, *, folder: Path = Path(), fresh: bool = False) -> MergeSummary:
    """Merge the shards of ``sample.output``; see ``shards.merge``."""
    return shards.merge(folder / recipe.sample.output, fresh=fresh)


@dataclass(frozen=True)
class _Plan:
    """What a run asks, of whom, and where the answers go."""

    recipe: Recipe
    path: Path
    settings: dict[str, Any]
    """What the answers depend on; a file made with other settings is refused."""
    problems: ProblemSet
    asked: dict[str, Any]
    """How much of the problems; unlike the settings, it may change between runs."""
    counted: Counted | None
    """What an earlier run with the same settings counted."""
    engine: Engine


def _plan(
    recipe: Recipe, folder: Path, shard: Shard | None, *, fresh: bool, decontaminated: bool, policy: Policy | None
) -> _Plan:
    """Everything before the output is opened: read the problems, choose the engine, find the model and the graders."""
    settings = recipe.sample
    if recipe.model is None:
        raise RecipeError(
            "a model is required", where="model", cure="spot sample --model MODEL, or set `model` in the recipe"
        )
    sets = [*recipe.eval.tasks, *settings.decontaminate] if decontaminated or settings.decontaminate else []
    path = shard.path(folder / settings.output) if shard else folder / settings.output
    held_out = _held_out(recipe, sets, folder, None if fresh else path)
    files.check_distinct(folder / settings.problems, path)
    check_free(path)
    engine = Engine(settings, recipe.model, policy=policy)
    depends_on = _settings(recipe, engine.sampling, shard, sets)
    asked = {"trials": settings.trials, "limit": settings.limit}
    problems = ProblemSet(recipe, folder, shard, held_out)
    # Counting a million problems takes longer than the rest of a run's start.
    counted = None if fresh else read_counted(path, depends_on, problems.digests, asked)
    problems.count(counted)
    engine.check()
    for name in problems.graders:
        grader_of(name, recipe.grader)
    if fresh or not path.exists():
        # Before a file is created, or an old one renamed; a run that resumes may need no request.
        engine.check_endpoint()
    return _Plan(recipe, path, depends_on, problems, asked, counted, engine)


def _held_out(recipe: Recipe, sets: list[str], folder: Path, resumed: Path | None) -> HeldOut | None:
    """The evaluation sets whose problems are excluded; None without any.

    Args:
        recipe: the whole recipe.
        sets: their names.
        folder: for relative paths.
        resumed: the output, if it may be resumed.
    """
    if not sets:
        return None
    evaluations = Evaluations.of_recipe(sets, recipe, folder)
    meta = outputs.read_meta(resumed) if resumed and resumed.exists() else {}
    # Earlier versions recorded no digests, and their answers are worth more than this check.
    unrecorded = meta.get("settings", {}).get("decontaminate") and not any(map(recorded, meta.get("inputs", {})))
    return HeldOut(sets, evaluations.holder, {} if unrecorded else evaluations.digests)


def _settings(recipe: Recipe, sampling: Sampling, shard: Shard | None, held_out: list[str]) -> dict[str, Any]:
    """The settings that the answers depend on, without those that only change the speed."""
    settings = recipe.sample
    optional = {
        "thinking": settings.thinking if settings.thinking != "auto" else None,
        "system": settings.system,
        "instruction": settings.instruction,
        "keep_tokens": settings.keep_tokens or None,
        "send_seed": None if settings.send_seed else False,
        "params": recorded_parameters(settings.params) or None,
        "shard": str(shard) if shard else None,
        "decontaminate": held_out or None,
    }
    return {
        "model": recipe.model and plain_name(recipe.model),
        "problems": settings.problems,
        "seed": recipe.seed,
        "grader": recipe.grader,
        **sampling.as_dict(),
        "chat_template_kwargs": settings.chat_template_kwargs,
        **{name: value for name, value in optional.items() if value is not None},
    }


def _open(plan: _Plan, answered: Answered, *, fresh: bool) -> outputs.Output:
    """Open the output, and read which answers it has."""
    output = outputs.Output(
        plan.path,
        command="spot sample",
        settings=plan.settings,
        inputs=plan.problems.digests,
        scan=answered.read,
        fresh=fresh,
    )
    if output.torn:
        say(f"{output.path}: moved an incomplete last line to {output.path.with_suffix('.torn').name}")
    answered.sort()
    return output


def _journal(plan: _Plan, output: outputs.Output) -> AnswerJournal:
    """The journal of answers that are not graded yet."""
    path = output.path.with_suffix(outputs.UNGRADED)
    return AnswerJournal(path, keeps_graded=False, keeps_tokens=plan.recipe.sample.keep_tokens)


def _grading(plan: _Plan) -> Callable[[Sequence[KeptAnswer]], list[Sample]]:
    """How answers become rows."""
    recipe, engine = plan.recipe, plan.engine
    settings = RowSettings.of(recipe.model, engine.name, engine.sampling, keeps_tokens=recipe.sample.keep_tokens)

    def grade(answers: Sequence[KeptAnswer]) -> list[Sample]:
        return [Sample.model_validate(row) for row in graded_answers(answers, recipe.grader, settings)]

    return grade


def _load_and_answer(plan: _Plan, output: outputs.Output, answering: Answering[Sample], work: Work) -> None:
    """Load the policy and have it answer what is missing."""
    engine = plan.engine
    policy = engine.load(log=output.path)
    try:
        _, first = next(plan.problems.requests())
        facts = policy.facts(first)
        output.note(engine=engine.entry(facts), complete=False)
        report_facts(engine.sampling, facts)
        requests = plan.problems.requests(round_size=1 if policy.trials_together else ROUND)
        answering.answer(policy, requests, work, label="sample")
        # Some facts are known only once the engine has started.
        output.note(engine=engine.entry(policy.facts(first)))
    finally:
        policy.close()
