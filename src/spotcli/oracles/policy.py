r"""The policy as an oracle: its wrong answer is cut before a step, and the policy continues it.

    12 + 30 = 43        cut before step 1: 5 of 8 continuations are right
    43 - 7 = 36         cut before step 2: none
    \boxed{36}          cut before step 3: none

The latest cut from which a continuation becomes a pair is the one that is used: here the first step is the wrong one.
This file knows the steps of an answer and the order in which cuts are tried. The rectify stage generates and judges.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from spotcli.grading.extraction.sentences import sentence_ends

CONTINUED = "policy"
"""The oracle that continues its own answers."""
PROMPTED = "policy-prompted"
"""The oracle that is asked for a correction as any model is, with the policy's own engine."""
NAMES = (CONTINUED, PROMPTED)

LONGEST = 20_000
"""Characters of an answer that is split into sentences; the time for formulas that are not closed grows with their
square."""
_LINE_END = re.compile(r"\n")
_SOLID = re.compile(r"\S")
_MARKS = re.compile(r"[\W_]*+(?:\d{1,2}[.)])?+[\W_]*+")
"""A text without a step: the number of a list, a bracket, a rule."""


@dataclass
class PolicyOracle:
    """The policy, which corrects many answers at once: its engine gets the requests of all open answers together.

    Args:
        name: ``policy`` or ``policy-prompted``.
        describe: returns what shapes the replies; called when ``version`` is first needed, since it reads the model.
        continuations: from each cut.
        search: the order in which cuts are tried.
        max_new_tokens: of a continuation; None: by the tokens that were cut off.
    """

    name: str
    describe: Callable[[], str]
    continuations: int = 8
    search: Literal["sweep", "bisect"] = "bisect"
    max_new_tokens: int | None = None

    @cached_property
    def version(self) -> str:
        """Identifies everything that shapes a reply; only replies of the same version count."""
        return self.describe()

    @property
    def prompted(self) -> bool:
        """Whether it is asked for a correction; otherwise it continues its own answer."""
        return self.name == PROMPTED

    def limit(self, removed: int) -> int:
        """Tokens that a continuation may have after a cut that removed this many."""
        return self.max_new_tokens or max(LEAST_TOKENS, 2 * removed)


LEAST_TOKENS = 64
"""Tokens that every continuation may have, unless the recipe sets a limit."""


def step_starts(text: str) -> tuple[int, ...]:
    """Where the steps of an answer begin, in characters: its lines, and the sentences in them. At least one.

    No step begins within a formula. The number of a list, or a line of brackets, belongs to the next step. A long
    answer has enough lines, so that they alone are its steps.
    """
    ends = sentence_ends(text) if len(text) <= LONGEST else [line.end() for line in _LINE_END.finditer(text)]
    starts: list[int] = []
    seen, bare = -1, False
    """The last place where a sentence begins, and whether the last step has only marks so far."""
    for end in (0, *ends):
        if end <= seen:
            continue
        first = _SOLID.search(text, end)
        if first is None:
            break
        bare = bare and _MARKS.fullmatch(text, seen, first.start()) is not None
        seen = first.start()
        if not bare:
            starts.append(seen)
            bare = True
    if len(starts) > 1 and bare and _MARKS.fullmatch(text, seen):
        starts.pop()
    return tuple(starts) or (0,)


@dataclass(frozen=True)
class SearchState:
    """How far the search for the cut of one answer is. Steps count from 1; a cut is before its step."""

    tried: tuple[int, ...]
    """Steps in the order in which they were tried."""
    next: int | None
    """The step to try next; None if the search has ended."""
    chosen: int | None
    """The latest step before which a cut helps, once the search has ended; None if no cut helps."""

    @property
    def path(self) -> tuple[int, ...]:
        """The tried steps and the next one."""
        return self.tried if self.next is None else (*self.tried, self.next)


def search_cut(count: int, search: Literal["sweep", "bisect"], helps: Callable[[int], bool | None]) -> SearchState:
    """Find the latest step before which a cut helps.

    ``sweep`` tries the steps from the last to the first, so it finds the latest one. ``bisect`` tries about log2 of
    them; it finds the latest one if each cut before it helps too. Continuations are samples, so that does not hold
    exactly: a cut can fail by chance, and the search then ends at an earlier cut than needed, or at none.

    Args:
        count: steps of the answer.
        search: the order.
        helps: whether a cut before a step helps; None if it has not been tried.
    """
    tried: list[int] = []
    low, high, chosen = 1, count, None
    while low <= high:
        step = high if search == "sweep" else (low + high + 1) // 2
        outcome = helps(step)
        if outcome is None:
            return SearchState(tuple(tried), step, None)
        tried.append(step)
        if outcome:
            chosen, low = step, (high if search == "sweep" else step) + 1
        else:
            high = step - 1
    return SearchState(tuple(tried), None, chosen)


def most_tried(count: int, search: Literal["sweep", "bisect"]) -> int:
    """Cuts that a search tries at most."""
    return count if search == "sweep" else count.bit_length()
