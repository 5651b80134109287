"""samples -> pairs: an oracle corrects the wrong answers with the smallest edit, and every correction is verified.

    spot rectify --oracle gpt-4o --max-cost 20

    wrong answers -> asked -> journalled -> read, graded, measured -> pairs

Every reply is in the journal (``data.replies.jsonl``) before it is looked at, and data.jsonl is made out of samples and
journal alone, in the samples' order, written at once. So a run that was killed goes on where it was, no reply is paid
for twice, and a filter can change without asking again. Right answers are skipped, undecided ones are left alone.
Left out on purpose: choosing which wrong answers are worth correcting, and any training.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from spotcli import jsonl, outputs
from spotcli.console import say, warn
from spotcli.core import edits, oracle_prompts
from spotcli.errors import BudgetReached, Unfinished, UserError
from spotcli.oracles import Oracle, ProviderOracle, worksheet
from spotcli.oracles.by_name import create
from spotcli.oracles.human import skipped
from spotcli.providers.replies import PassingFailure, Reply
from spotcli.recipe import Recipe, RectifySection
from spotcli.records import Pair, Sample
from spotcli.repair.cost_estimate import estimate
from spotcli.repair.dispatcher import FAILED, NOT_ASKED, Case, Dispatcher, History, Ratio
from spotcli.repair.journal import Entry, Journal

EMPTY_ANSWER = "empty answer"
SAME_ANSWER = "same answer"
NOT_NEEDED = "not needed"
"""The reason of wrong answers behind the last pair of a ``target``."""


@dataclass(frozen=True)
class RectifySummary:
    """What became of the samples: ``samples`` = right + undecided + wrong, and ``wrong`` = pairs + reasons.

    In the mode ``self`` it is the right ones that become rows: ``right`` = pairs + reasons.
    """

    path: str
    samples: int
    right: int
    undecided: int
    wrong: int
    asked: int
    """Wrong answers that an oracle replied about, now or in an earlier run."""
    pairs: int
    reasons: dict[str, int]
    """Why a wrong answer did not become a pair."""
    oracles: dict[str, dict[str, float]]
    """For each oracle: replies, pairs, cost, and cost of a pair."""
    cost: float
    """US dollars, of all replies in the journal whose price is known."""
    unsettled: float
    """US dollars reserved for requests whose end is unknown (killed, timed out): the provider may have charged them."""
    unpriced: int
    """Replies whose price is unknown."""
    ratio_unit: str
    """What the change ratio counts: ``tokens of MODEL``, or ``words and signs``."""
    estimate: dict[str, Any] | None
    """Of a dry run: requests, tokens, and US dollars (``min``, ``likely``, ``max``)."""
    seconds: float
    mode: str = "surgery"

    def __post_init__(self) -> None:
        assert self.samples == self.right + self.undecided + self.wrong, self
        worked_on = self.right if self.mode == "self" else self.wrong
        assert worked_on == self.pairs + sum(self.reasons.values()), self

    def as_dict(self) -> dict[str, Any]:
        found = asdict(self)
        if self.estimate is None:
            del found["estimate"]
        return found


def rectify(
    recipe: Recipe,
    *,
    folder: Path = Path(),
    fresh: bool = False,
    dry_run: bool = False,
    replay: bool = False,
    export: Path | None = None,
    import_: Path | None = None,
) -> RectifySummary:
    """Have the wrong answers corrected, keep what is right and close to them; paths are relative to ``folder``.

    Args:
        fresh: start anew; the old files, replies included, are kept aside.
        dry_run: ask nothing and write nothing; count tokens and price them.
        replay: ask nothing; make the pairs anew from the replies that are there, of whatever version of the prompt.
        export: ask nothing; write the answers that are a person's turn into this file, to be edited.
        import_: ask nothing; read such a file back and make the pairs anew.

    Raises:
        UserError: the samples are not there or broken, no such oracle, no key, a key or model that the provider does
            not accept, its quota used up, an unknown price under ``max_cost``.
        SettingsChanged: the output was made with another oracle or other settings of it.
        Unfinished: rows are left over after passing failures or Ctrl-C; the same command goes on.
        BudgetReached: ``max_cost`` would be exceeded.
    """
    started = time.monotonic()
    settings = recipe.rectify
    source = folder / settings.samples
    path = folder / settings.output
    samples = _samples(source, cut=settings.cut)
    if settings.mode == "self":
        return _keep_right(settings, samples, source, path, fresh=fresh, dry_run=dry_run, started=started)
    cases = _cases(samples, settings)
    if not cases:
        say(f"{source}: none of {len(samples)} answers is wrong, so there is nothing to correct")
    if settings.mode == "direct" and {settings.oracle or "symbolic", *settings.then} & {"symbolic", "human"}:
        raise UserError(
            "mode direct takes solutions of a model, and `symbolic` and `human` only correct",
            where="rectify.oracle",
            cure="name a model: --oracle gpt-4o",
        )
    oracles = [create(name, settings) for name in _ladder(settings, bool(cases), by_file=bool(export or import_))]
    ratio, unit = _ratio(settings, source) if cases and not dry_run else (edits.text_change_ratio, "")
    summary = partial(_summary, samples, cases, path=str(path), unit=unit, started=started, mode=settings.mode)
    if dry_run or export:
        history = History(any_version=False)
        if _journal_path(path).exists() and not fresh:
            with Journal(_journal_path(path), _price(oracles)) as journal:
                history = History.of(journal.entries, any_version=False)
        if export:
            _export(Dispatcher(cases, oracles, settings, history, ratio, grader=recipe.grader), path, folder / export)
            return summary(history)
        return summary(history, estimate=estimate(Dispatcher(cases, oracles, settings, history, ratio)))

    if fresh:
        _set_aside(path)
    with Journal(_journal_path(path), _price(oracles)) as journal:
        history = History.of(journal.entries, any_version=replay)
        _say_what_is_there(journal, history)
        with _open_output(path, settings, oracles, history, replay) as output:
            _keep_reviews(cases, output)
            asks = not (replay or import_)
            job = Dispatcher(
                cases, oracles, settings, history, ratio, journal=journal if asks else None, grader=recipe.grader
            )
            if import_:
                _import(job, journal, folder / import_, source)
            stopped = job.run()
            if isinstance(stopped, OSError):
                raise UserError(
                    f"cannot be written: {stopped.strerror}", where=str(journal.path), cure="the same command goes on"
                )
            enough = _cut_at_target(cases, settings.target)
            output.replace(_rows(cases))
            filters = {"gamma": settings.gamma, "target": settings.target, "ratio_unit": unit}
            output.note(filters=filters, samples={"path": settings.samples, "sha256": jsonl.digest(source)})
            result = summary(history, unsettled=journal.unsettled)
            left = 0 if enough else sum(count for reason, count in result.reasons.items() if _is_left(reason))
            output.finish(_counts(result), complete=not left)
    if left and asks:
        _raise_for(stopped, result, left)
    elif isinstance(stopped, UserError):
        raise stopped
    return result


def _ladder(settings: RectifySection, needed: bool, *, by_file: bool) -> list[str]:
    """The oracles in the order in which they are asked; a file for a person's corrections puts a person last."""
    named = [settings.oracle, *settings.then] if settings.oracle else settings.then
    if by_file:
        return named if "human" in named else [*named, "human"]
    if settings.oracle is None and needed:
        say("no oracle is named (--oracle): taking `symbolic`, which corrects arithmetic and needs no key")
    return [settings.oracle or "symbolic", *settings.then]


def _export(job: Dispatcher, data: Path, path: Path) -> None:
    """Write what is a person's turn into a file; never over one that may hold somebody's work."""
    if path.exists():
        raise UserError(
            "this file exists", where=str(path), cure="read it back with --import, or name another file to write"
        )
    reviewed: set[tuple[str, int]] = set()
    if data.exists():
        reviewed = {pair.key for pair in jsonl.read(data, Pair) if pair.review}
    items, others = [], 0
    for case in job.cases:
        step = job.next_step(case) if case.correctable and case.sample.key not in reviewed else None
        if step is not None and step.oracle.name == "human":
            items.append((step.digest, job.request(case, step)))
        elif step is not None:
            others += 1
    if others:
        say(f"{others} wrong answers are another oracle's turn first, and are not in {path}")
    path.write_text(worksheet.write(items), encoding="utf-8", newline="\n")
    say(f"{path}: {len(items)} wrong answers; edit it, and read it back with --import {path}")


def _import(job: Dispatcher, journal: Journal, path: Path, source: Path) -> None:
    """Put what a person wrote into the journal, whole, before it is judged as any reply is.

    Raises:
        UserError: no such file, or one that cannot be understood; nothing of it is taken then.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}", where=str(path), cure="make it with --export") from None
    cases = {case.digest: case for case in job.cases if case.correctable}
    counts: Counter[str] = Counter()
    entries: list[dict[str, Any]] = []
    for item in worksheet.read(text, str(path)):
        case = cases.get(item.digest)
        if case is None:
            counts["unknown"] += 1
            warn(f"{path}:{item.line}: {source} holds no such wrong answer (any more)")
            continue
        step = job.next_step(case, again="human")
        if step is None or step.oracle.name != "human":
            counts["another oracle's"] += 1
            continue
        former, word = job.history.find(step), item.text.strip()
        if word == worksheet.UNDO:
            counts["taken back" if former else "left for later"] += 1
            if former:
                named = {name: former[name] for name in ("key", "id", "trial", "sample", "attempt", "oracle")}
                entries.append({"kind": "undo", **named})
            continue
        if word in ("", worksheet.shown(case.sample.response).strip()):
            counts["left for later"] += 1
            continue
        reply = skipped() if word == worksheet.SKIP else Reply(text=item.text, cost=0.0)
        entry = job.entry(case, step, job.request(case, step), reply)
        if former and (former["text"], former["finish_reason"]) == (entry["text"], entry["finish_reason"]):
            counts["as before"] += 1
            continue
        counts["replaced" if former else "skipped" if word == worksheet.SKIP else "new"] += 1
        entries.append(entry)
    if entries:
        journal.append(entries)
    for entry in entries:
        job.history.add(entry)
    say(f"{path}: " + (", ".join(f"{count} {what}" for what, count in counts.items()) or "no answers"))


def _cases(samples: list[Sample], settings: RectifySection) -> list[Case]:
    """The wrong answers; the mode ``direct`` does not look at them, so it asks about the first of each problem."""
    cases: list[Case] = []
    problems: set[str] = set()
    for sample in samples:
        if sample.verdict == "wrong":
            case = Case(sample, repeats=settings.mode == "direct" and sample.id in problems)
            if case.correctable:
                problems.add(sample.id)
            cases.append(case)
    return cases


def _keep_right(
    settings: RectifySection,
    samples: list[Sample],
    source: Path,
    path: Path,
    *,
    fresh: bool,
    dry_run: bool,
    started: float,
) -> RectifySummary:
    """The mode ``self``: every right answer becomes a row that has no y-, the same text to a problem only once."""
    kept: list[Sample] = []
    reasons: Counter[str] = Counter()
    seen: set[tuple[str, str]] = set()
    for sample in samples:
        if sample.verdict != "right":
            continue
        text = (sample.id, sample.response.strip())
        if not text[1]:
            reasons[EMPTY_ANSWER] += 1
        elif text in seen:
            reasons[SAME_ANSWER] += 1
        elif settings.target is not None and len(kept) >= settings.target:
            reasons[NOT_NEEDED] += 1
        else:
            seen.add(text)
            kept.append(sample)
    verdicts = Counter(sample.verdict for sample in samples)
    result = RectifySummary(
        path=str(path), samples=len(samples), right=verdicts["right"], undecided=verdicts["undecided"],
        wrong=verdicts["wrong"], asked=0, pairs=len(kept), reasons=dict(sorted(reasons.items())), oracles={}, cost=0.0,
        unsettled=0.0, unpriced=0, ratio_unit="", estimate=None, seconds=time.monotonic() - started, mode="self",
    )  # fmt: skip
    if dry_run:
        return result
    if fresh:
        _set_aside(path)
    if _journal_path(path).exists():
        raise UserError(
            "an oracle's replies belong to this file", where=str(path), cure="-o writes elsewhere, --fresh starts anew"
        )
    with outputs.Output(path, command="spot rectify", settings={"mode": "self"}) as output:
        rows = {row_key(row): row for row in output.rows() if row.get("review")}
        output.replace(_right_row(sample, rows.get(sample.key)) for sample in kept)
        output.note(
            filters={"target": settings.target}, samples={"path": settings.samples, "sha256": jsonl.digest(source)}
        )
        output.finish(_counts(result), complete=True)
    return result


def row_key(row: dict[str, Any]) -> tuple[str, int]:
    """The key of a row of data.jsonl."""
    return row["id"], row.get("trial", 0)


def _right_row(sample: Sample, reviewed: dict[str, Any] | None) -> dict[str, Any]:
    if reviewed is not None and reviewed.get("response") == sample.response:
        return reviewed
    row = sample.model_dump(mode="json", exclude_unset=True)
    return row | {"chosen": sample.response, "oracle": {"name": "self"}}


def _counts(result: RectifySummary) -> dict[str, Any]:
    return {name: value for name, value in result.as_dict().items() if name not in ("path", "seconds")}


def _samples(source: Path, *, cut: bool) -> list[Sample]:
    renamed: dict[str, str] = {}
    samples = list(jsonl.read(source, Sample, renamed=renamed))
    for sample in samples:
        if cut and sample.finish_reason == "length":
            sample.verdict = "wrong"
    if renamed:
        say(f"{source}: read " + ", ".join(f"{other} as {ours}" for other, ours in renamed.items()))
    return samples


def _ratio(settings: RectifySection, source: Path) -> tuple[Ratio, str]:
    """The change ratio in the policy's tokens; in words and signs where no tokenizer can be loaded."""
    name = settings.tokenizer or outputs.read_meta(source).get("settings", {}).get("model")
    if not name:
        warn(f"{source}: no meta file names the policy, so change ratios count words and signs (--tokenizer names one)")
        return edits.text_change_ratio, "words and signs"
    try:
        from spotcli.policies.models import load_tokenizer

        tokenizer = load_tokenizer(name)
    except UserError as error:
        if settings.tokenizer:
            raise
        warn(f"the policy's tokenizer cannot be loaded ({error.message}): change ratios count words and signs")
        return edits.text_change_ratio, "words and signs"

    def in_tokens(rejected: str, chosen: str) -> float:
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (rejected, chosen)]
        return edits.change_ratio(*ids)

    return in_tokens, f"tokens of {name}"


def _journal_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}.replies.jsonl")


def _price(oracles: list[Oracle]) -> Callable[[Entry], float | None]:
    """What a reply of the journal costs: by the prices that are given now, else as it was noted, else by litellm's."""
    providers = {oracle.name: oracle for oracle in oracles if isinstance(oracle, ProviderOracle)}

    def price(entry: Entry) -> float | None:
        provider = providers.get(entry["oracle"])
        return provider.cost_of(entry["usage"], entry["cost"]) if provider else entry["cost"]

    return price


def _keep_reviews(cases: list[Case], output: outputs.Output) -> None:
    """Give each case the pair that a human reviewed, as far as it is about the same answer."""
    reviewed = {row_key(row): row for row in output.rows() if row.get("review")}
    for case in cases:
        row = reviewed.get(case.sample.key)
        if row and row.get("rejected") == case.sample.response:
            case.reviewed = row


def _set_aside(path: Path) -> None:
    if _journal_path(path).exists():
        Journal(_journal_path(path)).close()  # refuses where another process is writing
    moved = outputs.set_aside(path)
    if moved:
        say(f"the old files, with the oracle's replies, are kept as {moved.stem}.*")


def _say_what_is_there(journal: Journal, history: History) -> None:
    if journal.torn:
        say(f"{journal.path}: a line cut off by the last stop was set aside")
    if history.entries:
        say(f"{journal.path}: {len(history.entries)} replies are there already and are not asked for again")


def _open_output(
    path: Path, settings: RectifySection, oracles: list[Oracle], history: History, replay: bool
) -> outputs.Output:
    """The output; refused where it was made by another first oracle, or one that was asked otherwise."""
    if not history.entries and path.exists() and not path.stat().st_size:
        # A start that failed, for want of a key perhaps, binds nobody to its settings.
        outputs.meta_path(path).unlink(missing_ok=True)
    first = oracles[0]
    wanted: dict[str, Any] = {"oracle": first.name, "version": first.version}
    if first.prompted:
        reply = "solution" if settings.mode == "direct" else settings.reply
        wanted |= {"reply": reply, "reference": settings.reference, "prompt": oracle_prompts.VERSION}
    before = outputs.read_meta(path).get("settings")
    if replay and before:
        wanted = {name: value for name, value in before.items() if name != "mode"}
    if settings.mode != "surgery":
        wanted["mode"] = settings.mode
    return outputs.Output(path, command="spot rectify", settings=wanted)


def _cut_at_target(cases: list[Case], target: int | None) -> bool:
    """Keep the first N pairs in the samples' order: which requests happened to be in flight must not matter.

    True where there are N.
    """
    accepted = 0
    for case in cases:
        if target is not None and accepted >= target:
            case.outcome = case.entry = case.reviewed = None
            case.left = NOT_NEEDED
        accepted += case.accepted
    return target is not None and accepted >= target


def _rows(cases: list[Case]) -> Iterator[dict[str, Any]]:
    for case in cases:
        if case.reviewed is not None:
            yield case.reviewed
        elif case.accepted:
            yield _row(case)


def _row(case: Case) -> dict[str, Any]:
    """The pair: everything of the sample, and what the oracle made of it. Verdict and what was graded are y+'s."""
    assert case.outcome is not None
    assert case.entry is not None
    row = case.sample.model_dump(mode="json", exclude_unset=True)
    row.pop("reason", None)
    return row | {
        "rejected": case.sample.response,
        "chosen": case.outcome.chosen,
        "change_ratio": case.outcome.change_ratio,
        "verdict": case.outcome.verdict,
        "extracted": case.outcome.extracted,
        "oracle": {
            "name": case.entry["oracle"],
            "model": case.entry["model"],
            "version": case.entry["version"],
            "prompt": case.entry["prompt"] if case.entry["mode"] != "plain" else None,
            "reply": case.entry["mode"],
            "attempt": case.entry["attempt"],
            "usage": case.entry["usage"],
            "cost": case.entry["cost"],
        },
    }


def _is_left(reason: str) -> bool:
    return reason == NOT_ASKED or reason.startswith(FAILED)


def _summary(
    samples: list[Sample],
    cases: list[Case],
    history: History,
    *,
    path: str,
    unit: str,
    started: float,
    mode: str,
    unsettled: float = 0.0,
    estimate: dict[str, Any] | None = None,
) -> RectifySummary:
    verdicts = Counter(sample.verdict for sample in samples)
    reasons = Counter(case.reason for case in cases if not case.accepted)
    entries = history.entries
    by_oracle: dict[str, dict[str, float]] = {}
    for entry in entries:
        row = by_oracle.setdefault(entry["oracle"], {"replies": 0, "pairs": 0, "cost": 0.0})
        row["replies"] += 1
        row["cost"] += entry.get("cost") or 0.0
    for case in cases:
        if case.entry is not None and case.accepted:
            by_oracle[case.entry["oracle"]]["pairs"] += 1
    for row in by_oracle.values():
        if row["pairs"]:
            row["cost_per_pair"] = row["cost"] / row["pairs"]
    keys = {case.sample.key for case in cases}
    return RectifySummary(
        path=path,
        samples=len(samples),
        right=verdicts["right"],
        undecided=verdicts["undecided"],
        wrong=verdicts["wrong"],
        asked=len({(entry["id"], entry["trial"]) for entry in entries} & keys),
        pairs=sum(case.accepted for case in cases),
        reasons=dict(sorted(reasons.items())),
        oracles=dict(sorted(by_oracle.items())),
        cost=sum(entry.get("cost") or 0.0 for entry in entries),
        unsettled=unsettled,
        unpriced=sum(entry.get("cost") is None for entry in entries),
        ratio_unit=unit,
        estimate=estimate,
        seconds=time.monotonic() - started,
        mode=mode,
    )


def _raise_for(stopped: BaseException | None, result: RectifySummary, left: int) -> None:
    """Turn what stopped the run, or what it left over, into the error that says so."""
    kept = f"{result.pairs} pairs are in {result.path}, {left} of {result.wrong} wrong answers are left"
    failed = ", ".join(f"{reason} {count}" for reason, count in result.reasons.items() if reason.startswith(FAILED))
    if isinstance(stopped, BudgetReached):
        open_end = f" (${result.unsettled:.4f} of it for requests whose end is unknown)" if result.unsettled else ""
        raise BudgetReached(f"{stopped.message}{open_end}; {kept}", where=stopped.where, cure=stopped.cure)
    if isinstance(stopped, KeyboardInterrupt):
        raise Unfinished(f"stopped; {kept}", cure="the same command goes on")
    if isinstance(stopped, PassingFailure):
        later = f", in {stopped.retry_after:g} s" if stopped.retry_after else ", later"
        raise Unfinished(
            f"the oracle cannot be reached ({stopped.kind}: {stopped}); {kept}",
            cure=f"run the same command again{later}",
        )
    if stopped is not None:
        raise stopped
    raise Unfinished(f"some answers got no reply ({failed}); {kept}", cure="run the same command again")
