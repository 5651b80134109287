"""What to try next, from the reasons why wrong answers did not become pairs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from spotcli.console import counted
from spotcli.oracles.human import HumanOracle
from spotcli.recipe import RectifySection
from spotcli.repair.cases import Case
from spotcli.repair.continuations import NONE_RIGHT
from spotcli.repair.judge import FORM_ERRORS
from spotcli.repair.ladder import Ladder

WORTH_IT = 0.5
"""The share of the corrections that are too large which a proposed gamma keeps at least."""


def advice(cases: Sequence[Case], settings: RectifySection, ladder: Ladder) -> list[str]:
    """Return sentences with the options that could make more pairs, those without a price first."""
    undecided = [case for case in cases if not case.accepted and case.decided is not None]
    reasons = Counter(case.reason for case in undecided)
    prompted = any(oracle.prompted for oracle in ladder.oracles)
    sentences = [_larger_gamma(undecided, settings), _deleted(reasons["too much deleted"], settings)]
    if prompted:
        sentences += [
            _truncated(reasons["length"], settings),
            _form(sum(reasons[reason] for reason in FORM_ERRORS), settings),
            _wrong(reasons["wrong"] + reasons["unchanged"], settings, ladder),
        ]
    sentences.append(_none_right(reasons[NONE_RIGHT], settings))
    return [sentence for sentence in sentences if sentence]


def _none_right(count: int, settings: RectifySection) -> str:
    if not count:
        return ""
    verb = "has" if count == 1 else "have"
    more = 2 * settings.policy.continuations
    return (
        f"{counted(count, 'answer')} {verb} no right continuation: `--continuations {more}` adds to those that are "
        "there, and `--then MODEL` asks another oracle"
    )


def _larger_gamma(undecided: Sequence[Case], settings: RectifySection) -> str:
    ratios = sorted(
        case.decided.correction.change_ratio or 0.0
        for case in undecided
        if case.decided is not None and case.reason == "too large"
    )
    if not ratios:
        return ""
    wanted = ratios[math.ceil(WORTH_IT * len(ratios)) - 1]
    gamma = min(math.ceil(10 * wanted - 1e-9) / 10, 1.0)
    kept = sum(ratio <= gamma for ratio in ratios)
    if gamma <= settings.gamma:
        return ""
    verb = "is" if len(ratios) == 1 else "are"
    return (
        f"{counted(len(ratios), 'correction')} {verb} too large: `--gamma {gamma:g}` would keep {kept} of them, "
        "at no cost with `--replay`"
    )


def _deleted(count: int, settings: RectifySection) -> str:
    if not count:
        return ""
    verb = "lacks" if count == 1 else "lack"
    return (
        f"{counted(count, 'correction')} {verb} more than {settings.max_deleted:.0%} of the wrong answer: a larger "
        "`-s rectify.max_deleted` keeps such ones, at no cost with `--replay`"
    )


def _truncated(count: int, settings: RectifySection) -> str:
    if not count or settings.max_tokens is None:
        return ""
    verb = "was" if count == 1 else "were"
    return (
        f"{counted(count, 'reply', 'replies')} {verb} cut at the token limit: `--max-tokens {2 * settings.max_tokens}` "
        "asks again"
    )


def _form(count: int, settings: RectifySection) -> str:
    if not count:
        return ""
    verb = "has" if count == 1 else "have"
    problem = f"{counted(count, 'reply', 'replies')} {verb} an error in the form"
    if settings.attempts == 1:
        return f"{problem}: `--attempts 2` asks again, with the error"
    return f"{problem} after {settings.attempts} attempts: `--then MODEL` asks another oracle"


def _wrong(count: int, settings: RectifySection, ladder: Ladder) -> str:
    if not count:
        return ""
    verb = "is" if count == 1 else "are"
    problem = f"{counted(count, 'correction')} {verb} still wrong"
    if settings.attempts == 1:
        return f"{problem}: `--attempts 2` asks again, and `--then MODEL` asks another oracle"
    if any(isinstance(oracle, HumanOracle) for oracle in ladder.oracles):
        return ""
    return f"{problem} after {settings.attempts} attempts: `--then MODEL` or `--export FILE` (a person) can go on"
