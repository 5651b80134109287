"""TODO."""

from __future__ import annotations

from spotcli.core.edits import shared_prefix, text_change_ratio
from spotcli.records import Pair


def oracle_name(pair: Pair) -> str | None:
    """Who corrected the pair, as far as it says."""
    name = next((pair.oracle[key] for key in ("name", "oracle", "model") if pair.oracle.get(key)), None)
    return None if name is None else str(name)


def prompt_text(pair: Pair) -> str:
    """The whole prompt as text."""
    return "\n".join(message["content"] for message in pair.messages)


def first_edit_share(pair: Pair) -> float:
    """Where y+ parts from y-, as a share of y-: 0 at the first character, 1 after the last."""
    return shared_prefix(pair.original, pair.chosen) / len(pair.original)


def ratio_of(pair: Pair) -> float:
    """The pair's change ratio; measured in words and signs where the pair holds none."""
    return text_change_ratio(pair.original, pair.chosen) if pair.change_ratio is None else pair.change_ratio
