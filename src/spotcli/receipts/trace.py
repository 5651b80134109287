"""``spot trace ID``: the story of a row, in the order of time.

problem -> answers -> replies of the oracle -> pair -> decisions of people -> training steps -> scores
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spotcli import decisions, jsonl
from spotcli.console import dollars, printing
from spotcli.decisions import Event as DecisionEvent
from spotcli.errors import SpotError, UserError
from spotcli.problems.sources import iter_problems
from spotcli.receipts.judgements import JudgedReply, Judgements
from spotcli.receipts.run_files import RunFiles, meta_of, run_recipe
from spotcli.records import Pair, Problem, Sample
from spotcli.reply_entries import ContinuationEntry, ReplyEntry, UndoEntry
from spotcli.score_changes import base_scores

Fields = dict[str, Any]


@dataclass(frozen=True)
class Event:
    """Something that happened to the row."""

    kind: str
    """``problem``, ``sample``, ``reply``, ``undo``, ``pair``, ``decision``, ``training`` or ``score``."""
    summary: str
    """One line."""
    time: str | None = None
    """ISO 8601; None where no file has it: then it is placed after what it follows from."""
    text: str = ""
    """The text that it is about, in full."""
    facts: Fields = field(default_factory=dict)


@dataclass(frozen=True)
class Trace:
    """The story of a row."""

    id: str
    folder: str
    events: list[Event]
    missing: list[str]
    """What has not happened yet, or cannot be told, each with the cure."""

    def as_dict(self) -> Fields:
        return asdict(self)


def trace(id: str, folder: Path) -> Trace:
    """The story of the rows with an id.

    Raises:
        UserError: the folder has no file of a run, or no row has the id.
        DataError: a row cannot be read.
    """
    files = RunFiles.of(folder)
    samples, pairs = _rows(files.samples, id), _rows(files.pairs, id)
    scores = {path: _rows(path, id) for path in files.score_files}
    entries = [entry for entry in files.entries() if getattr(entry, "id", None) == id]
    problem = next((row for rows in (samples, pairs, *scores.values()) for row in rows), None)
    problem = problem or _in_problem_set(files, id)
    if problem is None and not entries:
        raise _unknown(files, id)
    missing: list[str] = []
    events = list(_problem(files, problem)) if problem else []
    events += _samples(files, samples, missing)
    events += _replies(files, samples or pairs, entries)
    events += _pairs(files, samples, pairs, missing)
    events += _decisions(files, id, pairs)
    events += _training(files, id, pairs, missing)
    events += _scores(files, scores, missing)
    return Trace(id, str(folder), _in_order(events), missing)


def _rows(path: Path, id: str) -> list[Fields]:
    """The rows of a dataset that have an id; none if it does not exist."""
    return [row for row in jsonl.rows(path) if row.get("id") == id] if path.is_file() else []


def _in_problem_set(files: RunFiles, id: str) -> Fields | None:
    """The problem in the set that is to be answered, if that is here."""
    name = files.recipe.sample.problems
    if not (name.startswith("builtin:") or (files.folder / name).is_file()):
        return None
    try:
        with printing(False):
            problems = iter_problems(name, folder=files.folder, seed=files.recipe.seed, limit=None, quiet=True)
            return next((problem.model_dump() for problem in problems if problem.id == id), None)
    except SpotError:
        return None


def _unknown(files: RunFiles, id: str) -> UserError:
    datasets = [path for path in files.existing if path.suffix == ".jsonl"]
    known = {str(row["id"]): None for path in datasets for row in jsonl.rows(path) if row.get("id")}
    near = difflib.get_close_matches(id, list(known), n=3, cutoff=0.5)
    near = near or [name for name in known if id.casefold() in name.casefold()][:3]
    examples = f"ids here are such as {', '.join(map(repr, list(known)[:3]))}"
    cure = f"did you mean {' or '.join(map(repr, near))}?" if near else examples
    return UserError(f"no row has the id {id!r}", where=str(files.folder), cure=cure)


def _problem(files: RunFiles, row: Fields) -> Iterator[Event]:
    fields = {name: row[name] for name in Problem.model_fields if name in row}
    problem = jsonl.as_record(fields, Problem, where=str(files.folder))
    text = "\n".join(message["content"] for message in problem.messages[-1:])
    earlier = f", after {len(problem.messages) - 1} messages" if len(problem.messages) > 1 else ""
    references = " or ".join(problem.references) if problem.reference is not None else "none"
    split = ", held out for evaluation" if row.get("split") == "eval" else ""
    yield Event(
        "problem",
        f"from {problem.source or 'an unnamed set'}{split}; reference answer: {references}{earlier}",
        text=text,
        facts={"source": problem.source, "answer": problem.answer, "grader": problem.grader, "prompt": problem.prompt},
    )


def _samples(files: RunFiles, rows: Sequence[Fields], missing: list[str]) -> Iterator[Event]:
    if not files.samples.is_file():
        missing.append(f"{files.samples}: no answers yet; run `spot sample`")
    started = meta_of(files.samples).get("started")
    for row in rows:
        reason = f" ({row['reason']})" if row.get("reason") else ""
        sampling = row.get("sampling") or {}
        by = f" by {sampling['model']}" if sampling.get("model") else ""
        final = f", final answer {row['extracted']}" if row.get("extracted") else ""
        yield Event(
            "sample",
            f"answer {row.get('trial', 0)}{by}: {row.get('verdict', 'not graded')}{reason}{final}",
            started,
            str(row.get("response", "")),
            {
                name: row.get(name)
                for name in ("trial", "verdict", "reason", "extracted", "finish_reason", "tokens", "sampling")
            },
        )


def _replies(files: RunFiles, rows: Sequence[Fields], entries: Sequence[Any]) -> Iterator[Event]:
    by_trial: dict[int, list[ReplyEntry | ContinuationEntry]] = defaultdict(list)
    for entry in entries:
        if isinstance(entry, ReplyEntry | ContinuationEntry):
            by_trial[entry.trial].append(entry)
        elif isinstance(entry, UndoEntry):
            yield Event("undo", f"a person took back the reply to answer {entry.trial}", facts={"trial": entry.trial})
    judgements = Judgements(files)
    for trial, replies in by_trial.items():
        row = next((row for row in rows if row.get("trial", 0) == trial), None)
        sample = _as_sample(row) if row else None
        yield from (_reply(reply) for reply in judgements.of(sample, replies))


def _as_sample(row: Fields) -> Sample | None:
    """The answer that was corrected; a pair keeps it."""
    try:
        return Sample.model_validate(row)
    except ValueError:
        return None


def _reply(judged: JudgedReply) -> Event:
    entry, correction = judged.entry, judged.correction
    judgement = judged.judgement or "about an earlier version of the answer"
    if correction is not None and correction.detail:
        judgement += f" ({correction.detail})"
    ratio = correction.change_ratio if correction else None
    changed = f", change ratio {ratio:.3f}" if ratio is not None else ""
    cost = f", {dollars(entry.cost)}" if entry.cost else ""
    who = f"{entry.oracle}{f' ({entry.model})' if entry.model and entry.model != entry.oracle else ''}"
    return Event(
        "reply",
        f"{who} about answer {entry.trial}, attempt {entry.attempt + 1}: {judgement}{changed}{cost}",
        entry.at or None,
        entry.text,
        {
            "trial": entry.trial,
            "oracle": entry.oracle,
            "model": entry.model,
            "version": entry.version,
            "prompt": entry.prompt,
            "attempt": entry.attempt,
            "finish_reason": entry.finish_reason,
            "judgement": judged.judgement or None,
            "detail": correction.detail if correction else None,
            "verdict": correction.verdict if correction else None,
            "change_ratio": ratio,
            "cost": entry.cost,
            "usage": entry.usage,
            "sent": entry.sent,
        },
    )


def _pairs(files: RunFiles, samples: Sequence[Fields], rows: Sequence[Fields], missing: list[str]) -> Iterator[Event]:
    if not files.pairs.is_file():
        missing.append(f"{files.pairs}: no pairs yet; run `spot rectify`")
    elif not rows and any(row.get("verdict") == "wrong" for row in samples):
        missing.append(f"{files.pairs}: no pair was made of this row")
    for row in rows:
        oracle = row.get("oracle") or {}
        ratio = row.get("change_ratio")
        changed = f", change ratio {ratio:.3f}" if isinstance(ratio, float) else ""
        by = f" by {oracle['name']}" if oracle.get("name") else ""
        yield Event(
            "pair",
            f"answer {row.get('trial', 0)} and its correction{by}, graded {row.get('verdict') or 'never'}{changed}",
            text=str(row.get("chosen", "")),
            facts={name: row.get(name) for name in ("trial", "verdict", "change_ratio", "oracle", "review")},
        )


def _decisions(files: RunFiles, id: str, rows: Sequence[Fields]) -> Iterator[Event]:
    path = decisions.review_path(files.pairs)
    if not path.is_file():
        return
    digests = {row.get("trial", 0): decisions.text_digest(Pair.model_validate(row)) for row in rows}
    undone, made = dict[str, str](), list[DecisionEvent]()
    for event in map(DecisionEvent.model_validate, jsonl.rows(path)):
        if event.event == "undo":
            undone[event.action] = event.time
        elif event.event == "decision" and event.key is not None and event.key[0] == id:
            made.append(event)
    for event in made:
        assert event.key is not None
        why = f": {event.reason}" if event.reason else ""
        state = ""
        if event.action in undone:
            state = f"; taken back {undone[event.action]}"
        elif digests.get(event.key[1]) != event.digest:
            state = "; without effect, because the text of the pair has changed since"
        yield Event(
            "decision",
            f"{event.who or 'a person'}: {event.decision} answer {event.key[1]}{why}{state}",
            event.time or None,
            event.chosen or "",
            {"who": event.who, "decision": event.decision, "reason": event.reason, "trial": event.key[1]}
            | {"taken_back": event.action in undone, "stale": digests.get(event.key[1]) != event.digest},
        )


def _training(files: RunFiles, id: str, rows: Sequence[Fields], missing: list[str]) -> Iterator[Event]:
    if not files.training:
        missing.append(f"{files.checkpoint}: not trained yet; run `spot train`")
        return
    if not rows:
        return
    known = run_recipe(files.checkpoint)
    digest = (files.training.get("inputs") or {}).get("data")
    where = str(files.checkpoint)
    if known is None:
        missing.append(f"{where}: the training steps cannot be derived: its recipe.yaml is missing or invalid")
        return
    recipe, folder = known
    data = folder / recipe.train.data
    if not data.is_file() or jsonl.digest(data) != digest:
        missing.append(f"{where}: the training steps cannot be derived: {data} is not the file that was trained on")
        return
    from spotcli.training.replay import replay

    try:
        with printing(False):
            review = (files.training.get("inputs") or {}).get("review")
            replayed = replay(recipe, folder, id, started=files.training.get("started"), review=review)
    except SpotError as error:
        missing.append(f"{where}: the training steps cannot be derived: {error.message}")
        return
    metrics = files.checkpoint / "metrics.jsonl"
    logged = [row for row in jsonl.rows(metrics) if "loss" in row] if metrics.is_file() else []
    done = max((int(row.get("step", 0)) for row in logged), default=0)
    for row in replayed.rows:
        trial = row.key[1]
        if row.left_out:
            summary = f"answer {trial} was not trained on: {row.left_out}"
        else:
            listed = ", ".join(f"{step}{'' if step <= done else ' (not reached yet)'}" for step in row.steps)
            summary = f"answer {trial} in step {listed} of {replayed.steps}, {recipe.train.objective}"
        steps = [{"step": step, "rows": replayed.step_sizes[step], **_metrics(logged, step)} for step in row.steps]
        text = "\n".join(_step_line(step) for step in steps if "loss" in step)
        facts = {"trial": trial, "steps": steps, "of": replayed.steps, "left_out": row.left_out, "derived": True}
        yield Event("training", summary, files.training.get("started"), text, facts)


def _metrics(logged: Sequence[Fields], step: int) -> Fields:
    """The logged metrics that cover a step."""
    row = next((row for row in logged if int(row.get("step", 0)) >= step), {})
    names = ("loss", "margin", "rewards_chosen", "rewards_rejected", "tether", "learning_rate")
    return {name: row[name] for name in names if name in row}


def _step_line(step: Fields) -> str:
    values = ", ".join(f"{name.replace('_', ' ')} {step[name]:.4g}" for name in step if name not in ("step", "rows"))
    return f"step {step['step']}, {step['rows']} rows: {values}"


def _scores(files: RunFiles, scores: dict[Path, list[Fields]], missing: list[str]) -> Iterator[Event]:
    if not scores:
        missing.append(f"{files.scores}: not evaluated yet; run `spot eval`")
    tuned = next((path for path in scores if path.stem == files.checkpoint.name), None)
    sides = {tuned: "after training", base_scores(tuned) if tuned else None: "before training"}
    for path, rows in sorted(scores.items(), key=lambda item: item[0] == tuned):
        for row in rows:
            reason = f" ({row['reason']})" if row.get("reason") else ""
            model = (row.get("sampling") or {}).get("model") or path.stem
            side = f"{sides[path]}, " if path in sides else ""
            yield Event(
                "score",
                f"{row.get('task')}, trial {row.get('trial', 0)}, {side}by {model}: {row.get('verdict')}{reason}",
                meta_of(path).get("started"),
                str(row.get("response", "")),
                {"file": str(path), "model": model}
                | {name: row.get(name) for name in ("task", "trial", "verdict", "reason", "extracted")},
            )


def _in_order(events: Sequence[Event]) -> list[Event]:
    """The events by their time; one without a time stays behind the one that it follows."""
    keyed, last = [], ""
    for event in events:
        last = event.time or last
        keyed.append((last, event))
    return [event for _, event in sorted(keyed, key=lambda item: item[0])]
