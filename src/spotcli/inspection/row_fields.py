"""The fields that a filter can name, of samples and replies, and of files with rows of several kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from spotcli.decisions import STALE, Decisions
from spotcli.inspection import row_kinds
from spotcli.inspection.pair_facts import cost_of, prompt_text
from spotcli.inspection.pair_filter import PAIR_FIELDS, SCORE_FIELDS, Fields, compared_fields
from spotcli.inspection.row_kinds import PAIRS, REPLIES, SAMPLES, SCORES
from spotcli.records import FinishReason, Pair, UngradedSample, Verdict
from spotcli.reply_entries import ReplyEntry
from spotcli.reviews import REVIEWS

if TYPE_CHECKING:
    from spotcli.inspection.comparison import Comparison

TRUNCATED = ("yes", "no")


def _truncated(row: Any) -> str | None:
    finish = getattr(row, "finish_reason", None)
    return None if finish is None else "yes" if finish == "length" else "no"


def model_name(sample: UngradedSample) -> str | None:
    """The model that gave an answer; None if the row does not name it."""
    sampling = getattr(sample, "sampling", {})
    return str(sampling["model"]) if sampling.get("model") else None


def sample_cost(sample: UngradedSample) -> float | None:
    """What an answer cost in US dollars; None if the row has no cost."""
    return cost_of(getattr(sample, "sampling", {}))


def token_count(sample: UngradedSample) -> int | None:
    """The tokens of an answer; None if the row does not have their number."""
    tokens = (sample.model_extra or {}).get("tokens")
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) else None


SAMPLE_FIELDS: Fields[UngradedSample] = Fields(
    numbers={
        "trial": lambda sample: sample.trial,
        "length": lambda sample: len(sample.response),
        "tokens": token_count,
        "cost": sample_cost,
    },
    texts={
        "id": lambda sample: sample.id,
        "source": lambda sample: sample.source,
        "prompt": prompt_text,
        "answer": lambda sample: sample.answer,
        "response": lambda sample: sample.response,
        "extracted": lambda sample: getattr(sample, "extracted", None),
        "verdict": lambda sample: getattr(sample, "verdict", None),
        "finish": lambda sample: sample.finish_reason,
        "truncated": _truncated,
        "reason": lambda sample: getattr(sample, "reason", None),
        "model": model_name,
    },
    choices={"verdict": (*get_args(Verdict), "none"), "finish": get_args(FinishReason), "truncated": TRUNCATED},
    other_names={"finish_reason": "finish"},
)
"""The fields of answers of the policy, graded or not."""


def _of_reply(name: str) -> Callable[[Any], Any]:
    """The getter of a field of replies, which the other entries of a journal may not have."""
    return lambda entry: getattr(entry, name, None)


def _answer_length(entry: Any) -> int | None:
    return len(entry.text) if isinstance(entry, ReplyEntry) else None


REPLY_FIELDS: Fields[Any] = Fields(
    numbers={
        "trial": _of_reply("trial"),
        "attempt": _of_reply("attempt"),
        "length": _answer_length,
        "cost": _of_reply("cost"),
        "seconds": _of_reply("seconds"),
    },
    texts={
        "id": _of_reply("id"),
        "oracle": _of_reply("oracle"),
        "model": _of_reply("model"),
        "mode": _of_reply("mode"),
        "response": _of_reply("text"),
        "reasoning": _of_reply("reasoning"),
        "finish": _of_reply("finish_reason"),
        "truncated": _truncated,
        "reason": _of_reply("reason"),
        "entry": row_kinds.entry_name,
    },
    choices={"truncated": (*TRUNCATED, "none"), "entry": row_kinds.REPLY_KINDS},
    other_names={"finish_reason": "finish", "text": "response"},
)
"""The fields of the entries of an oracle's journal."""


def pair_fields(decisions: Callable[[], Decisions]) -> Fields[Pair]:
    """The fields of pairs; ``decision``: ``review``, and ``stale``; ``reason``: why a pair was rejected."""

    def decision(pair: Pair) -> str | None:
        # The pair has the edited y+, which is not the text that was decided about.
        return pair.review or decisions().state(pair)

    def reason(pair: Pair) -> str | None:
        event = decisions().current(pair)
        return None if event is None else event.reason

    return replace(
        PAIR_FIELDS,
        texts={**PAIR_FIELDS.texts, "decision": decision, "reason": reason},
        choices={**PAIR_FIELDS.choices, "decision": (*REVIEWS, STALE, "none")},
    )


def fields_of(kind: str, decisions: Callable[[], Decisions], comparison: Comparison | None) -> Fields[Any]:
    """The fields of one kind of rows."""
    if kind == PAIRS:
        return pair_fields(decisions)
    if kind == SAMPLES:
        return SAMPLE_FIELDS
    if kind == REPLIES:
        return REPLY_FIELDS
    assert kind == SCORES
    fields = SCORE_FIELDS if comparison is None else compared_fields(comparison.changes)
    return replace(
        fields,
        texts={**fields.texts, "truncated": _truncated},
        choices={**fields.choices, "truncated": TRUNCATED},
    )


def merged(
    kinds: Sequence[str], decisions: Callable[[], Decisions], comparison: Comparison | None = None
) -> Fields[Any]:
    """The fields of a file with rows of some kinds; in a row of another kind, a field is missing."""
    parts = {kind: fields_of(kind, decisions, comparison) for kind in kinds}
    if len(parts) == 1:
        return next(iter(parts.values()))
    choices: dict[str, tuple[str, ...]] = {}
    for fields in parts.values():
        for name, values in fields.choices.items():
            choices[name] = tuple(dict.fromkeys((*choices.get(name, ()), *values, "none")))
    # A name without choices in one kind has none in the file.
    free = {name for fields in parts.values() for name in fields.texts if name not in fields.choices}
    return Fields(
        numbers=_dispatched({kind: fields.numbers for kind, fields in parts.items()}),
        texts=_dispatched({kind: fields.texts for kind, fields in parts.items()}),
        choices={name: values for name, values in choices.items() if name not in free},
        other_names={old: new for fields in parts.values() for old, new in fields.other_names.items()},
    )


def _dispatched(getters: Mapping[str, Mapping[str, Callable[[Any], Any]]]) -> dict[str, Callable[[Any], Any]]:
    """The getters of all kinds by name, each of which uses the one of the kind of its row."""

    def getter(name: str) -> Callable[[Any], Any]:
        by_kind = {kind: of_kind[name] for kind, of_kind in getters.items() if name in of_kind}

        def get(record: Any) -> Any:
            own = by_kind.get(row_kinds.kind_of_record(record))
            return None if own is None else own(record)

        return get

    return {name: getter(name) for name in dict.fromkeys(name for of_kind in getters.values() for name in of_kind)}
