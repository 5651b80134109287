"""problems -> samples: the policy answers every problem, and every answer is graded.

    spot sample builtin:arithmetic --model builtin:smollm2-135m

Answers are appended as soon as they are finished, with their verdict, and a second run answers only what is missing. An
answer that reached the token limit is undecided: it is no evidence of a mistake. A request without an answer is a
failure, and the next run retries it. Problems are a stream, so there can be millions. This stage neither selects among
answers nor repairs them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spotcli import files, outputs
from spotcli.console import progress, say
from spotcli.errors import RecipeError
from spotcli.evaluation.held_out import Evaluations
from spotcli.grading.kinds import grader_of
from spotcli.interrupts import interruptible
from spotcli.locks import check_free
from spotcli.policies import NO_LIMIT, Answer, EngineFacts, Failure, Policy, Request, Sampling
from spotcli.policies.by_name import check_endpoint, check_engine, load_policy
from spotcli.policies.engine_choice import EngineChoice, choose_engine
from spotcli.policies.models import resolve
from spotcli.recipe import Recipe
from spotcli.records import Problem
from spotcli.sampling import shards
from spotcli.sampling.answered import Answered, Work, count_remaining
from spotcli.sampling.foreign_answers import GradeSummary, grade_file
from spotcli.sampling.graded_rows import RowSettings
from spotcli.sampling.problem_set import Counted, HeldOut, ProblemSet, read_counted
from spotcli.sampling.shards import MergeSummary, Shard
from spotcli.sampling.summary import SampleSummary, report_facts, summarise
from spotcli.sampling.ungraded import StoppableGrading, UngradedAnswers

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
    answered = Answered()
    with _open(plan, answered, fresh=fresh) as output:
        row_settings = RowSettings.of(recipe, plan.sampling, plan.engine.name)
        answered.add_rows(UngradedAnswers(output.path).grade(row_settings, output, answered.has))
        remaining = count_remaining(plan.problems, answered, plan.counted)
        output.note(asked=plan.asked, counted=asdict(plan.problems.counted(remaining.others)))
        work = Work(remaining.missing)
        if remaining.missing:
            if len(answered):
                say(f"{output.path}: resuming with {len(answered)} answers, {remaining.missing} remain")
            _load_and_answer(plan, policy, output, answered, work)
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
    sampling: Sampling
    engine: EngineChoice
    model: str
    """The name or folder that the engine loads."""


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
    held_out = HeldOut(sets, Evaluations.of_recipe(sets, recipe, folder).holder) if sets else None
    path = shard.path(folder / settings.output) if shard else folder / settings.output
    files.check_distinct(folder / settings.problems, path)
    check_free(path)
    engine = EngineChoice(policy.engine, "passed by the caller") if policy else choose_engine(settings)
    sampling = Sampling(settings.max_new_tokens or NO_LIMIT, settings.temperature, settings.top_p, settings.top_k)
    if engine.name != "api":
        sampling = sampling.without_gaps()
    depends_on = _settings(recipe, sampling, shard, sets)
    asked = {"trials": settings.trials, "limit": settings.limit}
    problems = ProblemSet(recipe, folder, shard, held_out)
    # Counting a million problems takes longer than the rest of a run's start.
    counted = None if fresh else read_counted(path, depends_on, problems.digests, asked)
    problems.count(counted)
    if not policy:
        check_engine(engine.name, settings)
    model = recipe.model if policy or engine.name == "api" else resolve(recipe.model)
    for name in problems.graders:
        grader_of(name, recipe.grader)
    if not policy and (fresh or not path.exists()):
        # Before a file is created, or an old one renamed; a run that resumes may need no request.
        check_endpoint(engine.name, model, sampling, settings)
    return _Plan(recipe, path, depends_on, problems, asked, counted, sampling, engine, model)


def _settings(recipe: Recipe, sampling: Sampling, shard: Shard | None, held_out: list[str]) -> dict[str, Any]:
    """The settings that the answers depend on, without those that only change the speed."""
    settings = recipe.sample
    optional = {
        "thinking": settings.thinking if settings.thinking != "auto" else None,
        "system": settings.system,
        "instruction": settings.instruction,
        "keep_tokens": settings.keep_tokens or None,
        "send_seed": None if settings.send_seed else False,
        "shard": str(shard) if shard else None,
        "decontaminate": held_out or None,
    }
    return {
        "model": recipe.model,
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


def _load_and_answer(
    plan: _Plan, policy: Policy | None, output: outputs.Output, answered: Answered, work: Work
) -> None:
    """Load the policy and have it answer what is missing."""
    say(f"engine {plan.engine.name}: {plan.engine.reason}")
    policy = policy or load_policy(plan.engine.name, plan.model, plan.sampling, plan.recipe.sample, log=output.path)
    try:
        _, first = next(plan.problems.requests())
        facts = policy.facts(first)
        output.note(engine=_engine_entry(plan, facts), complete=False)
        report_facts(plan.sampling, facts)
        _answer(plan, policy, output, answered, work)
        # Some facts are known only once the engine has started.
        output.note(engine=_engine_entry(plan, policy.facts(first)))
    finally:
        policy.close()


def _engine_entry(plan: _Plan, facts: EngineFacts) -> dict[str, Any]:
    """The ``engine`` entry of the meta file."""
    choice = {"name": plan.engine.name, "why": plan.engine.reason}
    return choice | {"requested": plan.sampling.as_dict(), **facts.as_dict()}


def _answer(plan: _Plan, policy: Policy, output: outputs.Output, answered: Answered, work: Work) -> None:
    """Answer what is missing; each group of answers is graded and appended at once."""
    pending: dict[tuple[Any, ...], Problem] = {}
    settings = RowSettings.of(plan.recipe, plan.sampling, policy.engine)
    grading = StoppableGrading(settings, UngradedAnswers(output.path))

    def requests() -> Iterator[Request]:
        for problem, request in plan.problems.requests(round_size=1 if policy.trials_together else ROUND):
            pending[request.key] = problem
            yield request

    def done(request: Request) -> bool:
        if answered.has(request):
            pending.pop(request.key, None)
            return True
        return False

    def stop() -> None:
        policy.stop()
        grading.stop()

    def notice() -> str:
        return "stopping: finished answers are saved (Ctrl-C again drops those in flight)"

    with progress("answers") as display, interruptible(stop, notice=notice):
        bar = display.add_task("sample", total=work.wanted, note="")
        for group in policy.answers(requests(), work.wanted, done):
            answers = [item for item in group if isinstance(item, Answer)]
            rows = grading.rows([pending.pop(answer.request.key) for answer in answers], answers)
            output.append(rows or ())
            if output.disturbed:
                policy.stop()  # the command fails in the end, so it asks nothing more
            answered.count_new(rows or ())
            for item in group:
                if isinstance(item, Failure):
                    del pending[item.request.key]
            work.add(group, graded=rows is not None)
            display.update(bar, advance=len(group), note=work.note(answered.verdicts))
