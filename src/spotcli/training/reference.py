"""The reference: the starting policy's log-probabilities of both answers of every pair, computed once.

They are computed before there is an optimiser, by the same forward pass as the policy's (layout, precision, head), so
that the first rewards are 0 up to rounding. They are kept in a JSONL file, one pair a line, under a key made of all
that they depend on: weights, precision, layout and the pair's token ids. So they outlive shuffling, added pairs, other
objectives and other learning rates, and cannot go stale.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from spotcli.core.forward.encoding import EncodedPair
from spotcli.jsonl import Appender

Logps = tuple[float, float, float, float]
"""logp(y+), logp(y-), and of both the part that falls on edited tokens."""
NAMES = ("chosen", "rejected", "chosen_edited", "rejected_edited")

VERSION = "2"
"""Of how the numbers are computed; a change of it makes every cached row unknown."""

SAVE_EVERY = 64
"""Pairs between two writes: what a kill costs at most."""


def key(pair: EncodedPair, basis: str) -> str:
    """The name of a pair's reference.

    Args:
        pair: its token ids.
        basis: everything else: weights, precision, layout.
    """
    text = f"{VERSION}|{basis}|{pair.prompt_ids}|{pair.chosen_ids}|{pair.rejected_ids}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def reference_logps(
    pairs: Sequence[EncodedPair],
    *,
    cache: Path,
    basis: str,
    score: Callable[[Sequence[EncodedPair]], Sequence[Logps]],
    cut: Callable[[Sequence[int]], Sequence[Sequence[int]]],
    advance: Callable[[int], None] = lambda number: None,
    rank: int = 0,
    ranks: int = 1,
    share_out: Callable[[dict[str, Logps]], list[dict[str, Logps]]] | None = None,
) -> list[Logps]:
    """logp(y+) and logp(y-) of each pair under the starting policy, and of both the edited part, in nats.

    Args:
        pairs: the pairs to train on.
        cache: the JSONL file; rows of other weights or data may stand in it.
        basis: what the numbers depend on beside the pair.
        score: computes them for a micro-batch.
        cut: makes micro-batches of pairs, which are given by their indices, the longest first.
        advance: told how many pairs were done.
        rank: this process, of ``ranks``; each computes its part, the first one writes.
        ranks: processes.
        share_out: hands every rank's results to every rank.
    """
    keys = [key(pair, basis) for pair in pairs]
    if rank == 0:
        with Appender(cache) as file:
            known = {row["key"]: _logps(row) for row in file.rows()}
    else:
        known = {}
    if share_out is not None:
        known = share_out(known)[0]
    missing = sorted(
        {name: at for at, name in enumerate(keys) if name not in known}.values(), key=lambda at: -pairs[at].longest
    )
    advance(len(pairs) - len(missing))
    if missing:
        mine = missing[rank::ranks]
        found = _compute(mine, pairs, keys, score, cut, advance, cache if rank == 0 else None)
        for part in share_out(found) if share_out is not None else [found]:
            known |= part
        if rank == 0 and ranks > 1:
            with Appender(cache) as file:
                have = {row["key"] for row in file.rows()}
                file.append([_row(name, value) for name, value in known.items() if name not in have])
    return [known[name] for name in keys]


def _compute(
    missing: Sequence[int],
    pairs: Sequence[EncodedPair],
    keys: Sequence[str],
    score: Callable[[Sequence[EncodedPair]], Sequence[Logps]],
    cut: Callable[[Sequence[int]], Sequence[Sequence[int]]],
    advance: Callable[[int], None],
    cache: Path | None,
) -> dict[str, Logps]:
    found: dict[str, Logps] = {}
    unsaved: list[dict[str, Any]] = []
    with Appender(cache) if cache else nullcontext() as file:
        left = len(missing)
        for members in cut(missing):
            left -= len(members)
            for at, value in zip(members, score([pairs[at] for at in members]), strict=True):
                found[keys[at]] = value
                unsaved.append(_row(keys[at], value))
            advance(len(members))
            if file is not None and (len(unsaved) >= SAVE_EVERY or not left):
                file.append(unsaved)
                unsaved.clear()
    return found


def _row(name: str, value: Logps) -> dict[str, Any]:
    return {"key": name, **dict(zip(NAMES, value, strict=True))}


def _logps(row: dict[str, Any]) -> Logps:
    chosen, rejected, *edited = (row.get(name, 0.0) for name in NAMES)
    return chosen, rejected, edited[0], edited[1]
