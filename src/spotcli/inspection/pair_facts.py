"""Facts of one pair that the filter, the terminal and the HTML page share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spotcli.core.edits import shared_prefix, text_change_ratio
from spotcli.records import Pair, Problem

PAIR_KINDS = ("correction", "right")
"""A wrong answer with its correction, or a right answer of the policy alone."""


def pair_kind(pair: Pair) -> str:
    """Which of ``PAIR_KINDS`` a row is."""
    return PAIR_KINDS[pair.rejected is None]


def oracle_name(pair: Pair) -> str | None:
    """Return the name of the oracle that corrected the pair, or None if the row does not name one."""
    name = next((pair.oracle[key] for key in ("name", "oracle", "model") if pair.oracle.get(key)), None)
    return None if name is None else str(name)


def cost(pair: Pair) -> float | None:
    """Return what the correction cost in dollars, or None if the row does not say it."""
    return cost_of(pair.oracle)


def cost_of(facts: Mapping[str, Any]) -> float | None:
    """Return the cost among the facts of a row; None if it is missing or no number."""
    value = facts.get("cost")
    return None if isinstance(value, bool) or not isinstance(value, int | float) else value


def cost_text(pair: Pair) -> str | None:
    """Return what the correction cost, for display; None if the row does not say it."""
    return dollars(cost(pair))


def dollars(value: float | None) -> str | None:
    """Return a sum of US dollars for display; None if it is unknown."""
    if value is None:
        return None
    try:
        return f"${value:.4f}"
    except OverflowError:
        return "more than a number can hold"


def cut_text(pair: Pair) -> str | None:
    """Return where the policy cut its own answer to continue it, for display; None if it did not, or invalidly."""
    cut = pair.oracle.get("cut")
    if not isinstance(cut, dict):
        return None
    step, of, before, after, count = (
        value if type(value := cut.get(name)) is int and 0 <= value < 10**9 else None
        for name in ("step", "of", "right_before", "right_after", "continuations")
    )
    if step is None or of is None or before is None or not count:
        return None
    # After the last step comes nothing: that is the answer itself, and it is wrong.
    shares = f"right {before}/{count} before" + (f", {after}/{count} after" if after is not None else "")
    return f"cut before step {step} of {of}, {shares}"


def prompt_text(row: Problem) -> str:
    """Return all turns of the prompt as one text."""
    return "\n".join(message["content"] for message in row.messages)


def first_edit_share(pair: Pair) -> float:
    """Return where the first edit begins, as a share of y-: 0 at the first character, 1 after the last."""
    return shared_prefix(pair.original, pair.chosen) / len(pair.original)


def pair_change_ratio(pair: Pair) -> float:
    """Return the change ratio of the row, or compute it on words if the row has none."""
    return text_change_ratio(pair.original, pair.chosen) if pair.change_ratio is None else pair.change_ratio
