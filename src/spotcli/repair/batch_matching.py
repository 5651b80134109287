"""Which result of a batch belongs to which request, also where the provider has lost the names of its results.

A reply without a name is recognised by the fence in its tags. The order of the results decides only about replies
without a fence, and only where the fences of the others confirm it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from spotcli.providers.batches.api import BatchRow
from spotcli.repair.batch_log import Batch

CONFIRMED = 0.5
"""The share of the replies that must be recognised, each at its place, before the order decides about the others."""
_TAG = re.compile(r"</?(?:answer|edits)-([0-9a-f]{6})>")


@dataclass(frozen=True)
class Matched:
    """The results of a batch."""

    rows: dict[str, BatchRow]
    """By the names of their requests."""
    unnamed: list[BatchRow]
    """Replies of which nobody knows the request."""

    @property
    def count(self) -> int:
        return len(self.rows) + len(self.unnamed)


def match(rows: Sequence[BatchRow], batch: Batch) -> Matched:
    """Match results with requests; results of other batches are left out."""
    names, known = batch.custom_ids, set(batch.custom_ids)
    matched: dict[str, BatchRow] = {}
    for row in rows:
        if row.custom_id in known:
            matched.setdefault(row.custom_id, row)
    nameless = [row for row in rows if not row.custom_id]
    if not nameless:
        return Matched(matched, [])
    owners = _recognised(nameless, batch)
    if len(nameless) == len(names) and _in_order(owners, names):
        owners = list(names)
    rest = []
    for row, owner in zip(nameless, owners, strict=True):
        if owner is None or owner in matched:
            rest.append(row)
        else:
            matched[owner] = row
    replies = [row for row in rest if row.status == 200 and row.body is not None]
    if not replies:
        # Which of the other requests got which error makes no difference.
        matched |= zip((name for name in names if name not in matched), rest, strict=False)
    return Matched(matched, replies)


def _recognised(rows: Sequence[BatchRow], batch: Batch) -> list[str | None]:
    """The names of the requests whose fence is in each row."""
    counts = Counter(request.entry.fence for request in batch.requests)
    known = {
        request.entry.fence: name
        for name, request in zip(batch.custom_ids, batch.requests, strict=True)
        if counts[request.entry.fence] == 1
    }
    owners: list[str | None] = []
    for row in rows:
        found = {known[fence] for fence in _TAG.findall(json.dumps(row.body)) if fence in known}
        owners.append(found.pop() if len(found) == 1 else None)
    return owners


def _in_order(owners: Sequence[str | None], names: Sequence[str]) -> bool:
    """Whether the rows are in the order of the requests, as far as is known."""
    recognised = [(owner, name) for owner, name in zip(owners, names, strict=True) if owner is not None]
    confirmed = len(names) == 1 or len(recognised) >= CONFIRMED * len(names)
    return confirmed and all(owner == name for owner, name in recognised)
