"""samples -> pairs: an oracle corrects the wrong answers with the smallest edit, and every correction is verified.

    spot rectify --oracle gpt-4o --max-cost 20

    wrong answers -> requests -> journal -> parsed, graded, measured -> pairs

Every reply is journalled (``data.replies.jsonl``) before it is used, and data.jsonl is made of the samples and the
journal alone, in the order of the samples, and written at once. So a run that was killed resumes, no reply is paid for
twice, and a filter can change without new requests. Undecided answers are not corrected; ``--keep`` adds right ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from spotcli import files, outputs
from spotcli.console import say
from spotcli.core import edits
from spotcli.errors import UserError
from spotcli.locks import check_free
from spotcli.oracles import AnyOracle
from spotcli.policies import Policy
from spotcli.recipe import Recipe, RectifySection
from spotcli.repair import pair_file
from spotcli.repair.action import ASK, Action
from spotcli.repair.advice import advice
from spotcli.repair.batch_rounds import BatchRounds
from spotcli.repair.by_hand import export_open_answers, import_answers
from spotcli.repair.cases import Case, History, cases_of, keep_first_pairs, read_samples
from spotcli.repair.contested import contested_samples
from spotcli.repair.cost_estimate import estimate
from spotcli.repair.dispatcher import Dispatcher
from spotcli.repair.journal import Journal
from spotcli.repair.judge import Criteria, Judge, measure_by
from spotcli.repair.kept_answers import keep_answers
from spotcli.repair.ladder import Ladder, check_first_oracle, create_oracles
from spotcli.repair.next_request import RepairJob
from spotcli.repair.policy_engine import PolicyEngine
from spotcli.repair.policy_rounds import PolicyRounds
from spotcli.repair.right_answers import keep_right_answers
from spotcli.repair.summary import Origin, RectifySummary, raise_unfinished, summarise
from spotcli.repair.terminal import show

__all__ = ["Action", "RectifySummary", "rectify", "show"]


def rectify(
    recipe: Recipe,
    *,
    folder: Path = Path(),
    fresh: bool = False,
    action: Action = ASK,
    policy: Policy | None = None,
) -> RectifySummary:
    """Have the wrong answers corrected; keep the corrections that are right and close to them.

    Args:
        folder: what all paths are relative to.
        fresh: start from scratch; the old files, replies included, are kept under another name.
        action: what to do with the wrong answers.
        policy: use this policy for the oracles that are the policy, instead of the engine of the recipe.

    Raises:
        UserError: missing or invalid samples, an unknown oracle, a missing key, a key or model that the provider
            rejects, an exhausted quota, an unknown price under ``max_cost``.
        SettingsChanged: the output was made with another oracle or with other settings of it.
        Unfinished: wrong answers remain after failed requests or Ctrl-C; the same command resumes.
        BudgetReached: the next request could exceed ``max_cost``.
    """
    started = time.monotonic()
    settings = recipe.rectify
    source, path = folder / settings.samples, folder / settings.output
    files.check_distinct(source, path)
    check_free(path)
    samples = read_samples(source, truncated_are_wrong=settings.cut)
    contested = contested_samples(samples, source, recipe.grader)
    origin = Origin(path, samples, settings.mode, started, contested, recipe.seed, settings.keep)
    if settings.mode == "self":
        return keep_right_answers(settings, source, origin, fresh=fresh, dry_run=action.kind == "dry run")
    cases = cases_of(samples, settings, contested)
    if not cases:
        say(f"{source}: none of {len(samples)} answers is wrong, so no pair can be made")
    engine = PolicyEngine(recipe, source, policy=policy)
    oracles = create_oracles(settings, bool(cases), by_file=action.kind in ("export", "import"), engine=engine)
    measured = cases and action.kind != "dry run"
    measure, unit = measure_by(settings, source) if measured else (edits.measure_text, "")
    run = _Run(
        settings=settings,
        source=source,
        path=path,
        fresh=fresh,
        any_version=action.any_version,
        cases=cases,
        oracles=oracles,
        engine=engine,
        criteria=Criteria(measure, settings.gamma, settings.max_deleted, settings.answer_only, recipe.grader),
        origin=replace(origin, ratio_unit=unit),
    )
    if action.kind == "export":
        return _export(run, folder / action.file)
    if action.kind == "import":
        return _import(run, folder / action.file)
    return {"ask": _ask, "replay": _replay, "dry run": _dry_run}[action.kind](run)


@dataclass(frozen=True)
class _Run:
    """What all actions with oracles start from."""

    settings: RectifySection
    source: Path
    """The samples."""
    path: Path
    """The pairs."""
    fresh: bool
    any_version: bool
    cases: list[Case]
    oracles: list[AnyOracle]
    engine: PolicyEngine
    """Of the policy; it is loaded only if the policy is an oracle."""
    criteria: Criteria
    origin: Origin

    def job(self, history: History, *, repeat_truncated: bool = False) -> RepairJob:
        return RepairJob(self.cases, self.ladder(repeat_truncated=repeat_truncated), history, Judge(self.criteria))

    def ladder(self, *, repeat_truncated: bool = False) -> Ladder:
        return Ladder.of(self.settings, self.oracles, repeat_truncated=repeat_truncated)


def _ask(run: _Run) -> RectifySummary:
    """Send the requests that have no reply yet, then make the pairs."""
    if run.fresh or not pair_file.journal_path(run.path).exists():
        # Before a file is created, or an old one renamed; a run that resumes may need no request.
        check_first_oracle(run.oracles, run.cases, run.engine)
    with _opened(run) as (journal, history, output):
        journal.check_batches(run.settings)
        stopped = _ask_oracles(run, run.job(history, repeat_truncated=True), journal)
        if isinstance(stopped, OSError):
            raise UserError(
                f"failed to write: {stopped.strerror}", where=str(journal.path), cure="the same command resumes"
            )
        summary, complete = _write_pairs(run, history, journal, output)
    if not complete:
        raise_unfinished(stopped, summary)
    if isinstance(stopped, UserError):
        raise stopped
    return summary


def _ask_oracles(run: _Run, job: RepairJob, journal: Journal) -> BaseException | None:
    """Ask the oracles in their order, each group of them in its way. What stopped the run."""
    work: Dispatcher | BatchRounds | PolicyRounds
    for group in job.ladder.groups():
        if group.kind == "single":  # about one answer at a time
            work = Dispatcher(job, group.single, journal, run.settings)
        elif group.kind == "batch":  # by a provider's batch API, round by round
            work = BatchRounds(job, group.models, journal, run.settings)
        else:  # the policy, about all answers at once
            work = PolicyRounds(job, group.policies, journal, run.engine, target=run.settings.target, log=run.path)
        if (stopped := work.run()) is not None:
            return stopped
    return None


def _replay(run: _Run) -> RectifySummary:
    """Make the pairs from the replies so far."""
    with _opened(run) as (journal, history, output):
        run.job(history).settle(run.settings.target)
        return _write_pairs(run, history, journal, output)[0]


def _import(run: _Run, file: Path) -> RectifySummary:
    """Journal the corrections of a person, then make the pairs."""
    with _opened(run) as (journal, history, output):
        job = run.job(history)
        import_answers(job, journal, file, run.source)
        job.settle(run.settings.target)
        return _write_pairs(run, history, journal, output)[0]


def _export(run: _Run, file: Path) -> RectifySummary:
    """Write the answers whose next oracle is a person."""
    history, *_ = _history(run)
    export_open_answers(run.job(history), run.path, file)
    return summarise(run.origin, run.cases, history)


def _dry_run(run: _Run) -> RectifySummary:
    """Estimate the cost of the requests that have no reply yet."""
    history, spent, in_batches = _history(run)
    planned = estimate(run.job(history), run.engine, spent=spent, in_batches=in_batches)
    summary = summarise(run.origin, run.cases, history, estimate=planned)
    return replace(summary, max_cost=run.settings.max_cost)


def _history(run: _Run) -> tuple[History, float, frozenset[str]]:
    """The replies so far, the US dollars that count against ``max_cost``, and the keys of requests that are in an open
    batch; nothing is written."""
    if run.fresh or not pair_file.journal_path(run.path).exists():
        return History(), 0.0, frozenset()
    with pair_file.open_journal(run.path, run.oracles) as journal:
        return History(journal.entries), journal.spent + journal.unsettled, journal.in_batches


@contextmanager
def _opened(run: _Run) -> Iterator[tuple[Journal, History, outputs.Output]]:
    """The journal, its replies, and the file of pairs, whose reviewed pairs are kept."""
    if run.fresh:
        pair_file.set_aside(run.path)
    with pair_file.open_journal(run.path, run.oracles) as journal:
        history = History(journal.entries, any_version=run.any_version)
        pair_file.report_resumed(journal, history)
        first = run.oracles[0]
        with pair_file.open_pairs(run.path, run.settings, first, history, replay=run.any_version) as output:
            pair_file.keep_reviewed(run.cases, output)
            yield journal, history, output


def _write_pairs(run: _Run, history: History, journal: Journal, output: outputs.Output) -> tuple[RectifySummary, bool]:
    """Write all pairs at once; the summary, and whether nothing remains to be asked."""
    settings = run.settings
    enough = keep_first_pairs(run.cases, settings.target)
    kept = keep_answers(run.origin, run.cases, output)
    output.replace(kept.beside(pair_file.pair_rows(run.cases)))
    pair_file.note_origin(output, settings, run.source, run.origin.ratio_unit, history)
    summary = summarise(run.origin, run.cases, history, unsettled=journal.unsettled)
    summary = replace(summary, advice=advice(run.cases, settings, run.ladder()), **kept.counts)
    complete = enough or not summary.remaining
    output.finish(summary.counts, complete=complete)
    return summary, complete
