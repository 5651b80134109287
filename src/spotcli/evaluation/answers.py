"""A model's answers to the tasks: missing ones are answered, graded and appended to ``scores/MODEL.jsonl``.

Every answer is in ``scores/MODEL.answers.jsonl`` before it is graded, and stays there, so it can be graded again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from spotcli import jsonl, outputs
from spotcli.answering.answered import Answered, Work, stopped
from spotcli.answering.engine import Engine, recorded_parameters, report_facts
from spotcli.answering.graded import RowSettings, grader_field
from spotcli.answering.journal import AnswerJournal
from spotcli.answering.loop import Answering
from spotcli.console import counted, say
from spotcli.errors import SettingsChanged, UserError
from spotcli.evaluation.asked_tasks import AskedTask, ModelRows, recorded_failures, wanted_rows
from spotcli.evaluation.graded_scores import ScoreGrading
from spotcli.evaluation.tasks import LoadedTask
from spotcli.policies import Answer, Failure, Policy, Request
from spotcli.policies.fingerprint import SCORES, fingerprint
from spotcli.policies.models import base_of, resolve
from spotcli.recipe import Recipe
from spotcli.records import Problem, Score, plain_prompt


class ModelEvaluation:
    """One model and the tasks that it answers.

    Args:
        recipe: the whole recipe.
        tasks: the tasks, by name.
        model: a folder, a hub id, a built-in model, or a model of the endpoint.
        folder: for relative paths.
    """

    def __init__(self, recipe: Recipe, tasks: Mapping[str, LoadedTask], model: str, *, folder: Path) -> None:
        self._recipe = recipe
        self._settings = recipe.eval
        self._asked = {name: AskedTask(recipe, loaded) for name, loaded in tasks.items()}
        self.model = model
        self.path = scores_path(recipe, model, folder)
        self._location = _local_folder(model, folder)
        is_local = self._location is not None or model.startswith("builtin:")
        self.engine = Engine(self._settings, self._location or model, is_local=is_local)
        self.has_no_weights = False
        """The saved answers are of weights in a folder, and these weights are missing now."""

    def check(self, *, fresh: bool) -> None:
        """Check that the model can be asked, unless it has answered all tasks of an earlier evaluation.

        Raises:
            UserError: the model is not found, a package of its engine is missing, or an endpoint cannot be asked.
            SettingsChanged: the saved answers were made with other settings or weights.
        """
        if not fresh and self.path.parent.is_dir() and outputs.read_meta(self.path):
            self._refuse_other_limits(outputs.check_settings(self.path, self._recorded(fresh=False)))
        if fresh or not (self.path.exists() and outputs.read_meta(self.path).get("complete")):
            self.engine.check()
            self.engine.check_endpoint()

    def answer(self, *, fresh: bool) -> ModelRows:
        """Answer and grade what the model's file does not have yet.

        Raises:
            UserError: no request can succeed, the weights are missing, or another process evaluates the model.
            SettingsChanged: the file was made with other settings, weights or problems.
            Unfinished: the run was stopped, or many requests in a row failed.
        """
        answered = Answered(lambda row: (row["task"], row["id"], row.get("trial", 0)))
        with self._open(answered, fresh=fresh) as output, self._journal(output) as journal:
            self._refuse_other_limits(output.meta.notes)
            limits = {name: asked.limit for name, asked in self._asked.items()}
            output.note(limits=output.meta.notes.get("limits", {}) | limits)
            answering = Answering(output, journal, answered, self._grading())
            answering.grade_kept(self._asked)
            work = Work(sum(not answered.has(request) for _, request in self._requests()))
            if work.wanted:
                self._require_weights(work.wanted)
                if len(answered):
                    say(f"{output.path}: resuming with {len(answered)} answers, {work.wanted} remain")
                self._load_and_answer(output, answering, work)
            rows = wanted_rows(jsonl.read(output.path, Score), self._asked)
            # Also where nothing was missing: the process that answered may have been killed before it noted this.
            seconds = output.meta.notes.get("seconds", {}) | journal.seconds
            failed = recorded_failures(output.meta.notes) | dict.fromkeys(self._asked, 0) | work.failed_groups
            output.note(seconds=seconds, failures=dict(work.failures), failed=failed)
            counts: Counter[str] = Counter(row.verdict for row in rows)
            output.finish(counts, complete=not work.failures and not work.remaining)
            if work.remaining:
                where = str(output.path)
                raise stopped(where, answers=len(rows), remaining=work.remaining, ungraded=work.ungraded)
        return ModelRows(self.model, str(output.path), rows, work.failed_groups, work.failures, seconds)

    def _requests(self) -> Iterator[tuple[Problem, Request]]:
        for asked in self._asked.values():
            yield from asked.requests()

    def _recorded(self, *, fresh: bool) -> dict[str, Any]:
        """What the answers depend on."""
        settings = self._settings
        optional = {
            "thinking": settings.thinking if settings.thinking != "auto" else None,
            "system": settings.system,
            "keep_tokens": settings.keep_tokens or None,
            "send_seed": None if settings.send_seed else False,
            "params": recorded_parameters(settings.params) or None,
        }
        return {
            "model": self.model,
            "fingerprint": self._fingerprint(fresh=fresh),
            "seed": self._recipe.seed,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "top_k": settings.top_k,
            "max_new_tokens": settings.max_new_tokens,
            "chat_template_kwargs": settings.chat_template_kwargs,
            **{name: value for name, value in optional.items() if value is not None},
        }

    def _open(self, answered: Answered, *, fresh: bool) -> outputs.Output:
        def scan(row: dict[str, Any]) -> None:
            answered.read(row)
            self._refuse_other_problem(row)

        output = outputs.Output(
            self.path,
            command="spot eval",
            settings=self._recorded(fresh=fresh),
            scan=scan,
            fresh=fresh,
        )
        answered.sort()
        return output

    def _fingerprint(self, *, fresh: bool) -> str | None:
        """Of a model in a folder; a hub model is identified by its name.

        If the folder, or the base model of its adapter, is missing, it is that of the saved answers: they are complete,
        or the run ends before it asks for more.
        """
        recorded = None if fresh else outputs.read_meta(self.path).get("settings", {}).get("fingerprint")
        location = self._location or (resolve(self.model) if self.model.startswith("builtin:") else None)
        weights = None
        if location and Path(location).is_dir():
            with suppress(*((UserError,) if recorded else ())):
                # Of a model at an endpoint, the folder may have anything.
                weights = fingerprint(location, SCORES) if self.engine.name == "api" else weights_of(location)
        self.has_no_weights = bool(recorded) and weights is None
        # Earlier versions recorded the adapter alone.
        return recorded if weights is None or recorded == weights.partition("+")[0] else weights

    def _require_weights(self, wanted: int) -> None:
        """Refuse to add answers to those of a model that is missing now: another one may have its name.

        Raises:
            UserError: the weights are missing.
        """
        if self.has_no_weights:
            raise UserError(
                f"the folder of the model is missing, and {counted(wanted, 'answer')} to its tasks too",
                where=self.model,
                cure="put the folder (and the base model of an adapter) back, or write to another folder with -o",
            )

    def _refuse_other_limits(self, meta: Mapping[str, Any]) -> None:
        """Refuse saved answers with other token limits.

        Raises:
            SettingsChanged: the limit of a task has changed.
        """
        recorded = meta.get("limits", {})
        for name, asked in self._asked.items():
            if recorded.get(name, asked.limit) != asked.limit:
                raise SettingsChanged(
                    f"the saved answers to {name} were made with another limit of tokens: it was {recorded[name]}, now "
                    f"{asked.limit}",
                    where=str(self.path),
                    cure=outputs.CURE,
                )

    def _refuse_other_problem(self, row: Mapping[str, Any]) -> None:
        """Refuse an answer to another problem than the task has under this id, and a verdict by another reference.

        Raises:
            SettingsChanged: the problem has changed.
        """
        asked = self._asked.get(row["task"])
        problem = asked.problems.get(row["id"]) if asked else None
        if asked is None or problem is None:
            return
        where = f"{self.path}: problem {row['id']} of {row['task']}"
        if plain_prompt(row["prompt"]) != plain_prompt(problem.prompt):
            raise SettingsChanged("the saved answers were given to another prompt", where=where, cure=outputs.CURE)
        grader = grader_field(problem, asked.task.grader).get("grader")
        # Earlier versions did not write the grader.
        other_grader = "sampling" in row and row.get("grader") != grader
        accepted = row.get("accepted_answers") or [row.get("answer") or ""]
        if other_grader or row.get("answer") != problem.answer or accepted != problem.references:
            raise SettingsChanged(
                f"the saved answers were graded by another {'grader' if other_grader else 'reference answer'}",
                where=where,
                cure="grade them again with --rescore, which asks no model",
            )

    def _journal(self, output: outputs.Output) -> AnswerJournal:
        path = output.path.with_suffix(outputs.ANSWERS)
        return AnswerJournal(path, keeps_graded=True, keeps_tokens=self._settings.keep_tokens)

    def _grading(self) -> ScoreGrading:
        sampling = self.engine.sampling
        settings = RowSettings.of(self.model, self.engine.name, sampling, keeps_tokens=self._settings.keep_tokens)
        return ScoreGrading({name: asked.task for name, asked in self._asked.items()}, settings)

    def _load_and_answer(self, output: outputs.Output, answering: Answering[Score], work: Work) -> None:
        """Load the policy and have it answer what is missing."""
        self.engine.check()
        policy = self.engine.load(log=output.path)
        try:
            self._note_engine(output, policy, first=True)
            answering.answer(policy, self._requests(), work, label=Path(self.model).name)
            # Some facts are known only once the engine has started.
            self._note_engine(output, policy, first=False)
        finally:
            policy.close()

    def _note_engine(self, output: outputs.Output, policy: Policy, *, first: bool) -> None:
        _, request = next(self._requests())
        facts = policy.facts(request)
        if first:
            report_facts(self.engine.sampling, facts)
        output.note(engine=self.engine.entry(facts), complete=False)


def refuse_shared_files(models: Mapping[str, ModelEvaluation]) -> None:
    """Refuse models whose names give one file of scores, such as ``m-1`` and ``m_1``.

    Raises:
        UserError: two of them have one.
    """
    paths: dict[Path, str] = {}
    for name, evaluation in models.items():
        if (other := paths.setdefault(evaluation.path, name)) != name:
            raise UserError(
                f"the models '{other}' and '{name}' have the same file of scores",
                where=str(evaluation.path),
                cure="evaluate one of them first, into another folder (-o), and name the file of its scores here",
            )


def expect_answer(item: Answer | Failure) -> Answer:
    """The answer to a prompt that every model can answer.

    Raises:
        UserError: the item is a failure.
    """
    if isinstance(item, Failure):
        raise UserError(
            f"the model cannot answer this problem: {item.reason}",
            where=str(item.request.key),
            cure="use a model with a longer context, or remove the task from eval.tasks",
        )
    return item


def weights_of(model: str) -> str:
    """Fingerprint of a model's weights; of an adapter, with those of its base model.

    Args:
        model: a folder or a hub id.

    Raises:
        UserError: the base model of an adapter is missing.
    """
    base = base_of(model)
    return fingerprint(model, SCORES) + (f"+{fingerprint(resolve(base), SCORES)}" if base else "")


def model_path(model: str, folder: Path) -> str:
    """A model's folder relative to ``folder`` if it exists, else what ``models.resolve`` returns."""
    return str(folder / model) if (folder / model).is_dir() else resolve(model)


def _local_folder(model: str, folder: Path) -> str | None:
    """A model's folder, relative to ``folder`` or not; None if no such folder exists."""
    if (folder / model).is_dir():
        return str(folder / model)
    return model if Path(model).expanduser().is_dir() else None


def scores_path(recipe: Recipe, model: str, folder: Path) -> Path:
    """The file of a model's graded answers."""
    return folder / recipe.eval.output / f"{slug(model)}.jsonl"


def slug(model: str) -> str:
    """A model's name as a file name."""
    return re.sub(r"[^\w.]+|_+", "-", model).strip("-.") or "model"
