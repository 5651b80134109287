r"""The free oracle: repairs a worked calculation line by line, and declines where it cannot be sure.

    problem     12 + 30 - 7
    answer      12 + 30 = 43        repaired    12 + 30 = 42
                43 - 7 = 36                     42 - 7 = 35
                \boxed{36}                      \boxed{35}

The problem's expression is the *state*. Each equation of the answer is read as working out a part of the state that
may be worked out next, as precedence allows. Of all ways to read the answer so, the one with the fewest slips counts:
numbers and signs that are neither the true ones nor what the student's own earlier lines say. Two different ways with
as few are ambiguous. What differs from the truth in that reading is replaced, everything else stays as it is.

Left out on purpose: algebra, powers, roots, rounded results, steps that are missing or too many.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, get_args

from spotcli.oracles.symbolic.expressions import (
    OPERATORS,
    Number,
    Shape,
    Token,
    Unreadable,
    Why,
    Written,
    apply,
    expression,
    lone_number,
    may_reduce,
    real_groups,
    runs,
    split_at_equals,
    tree_of,
    value_of,
)

if TYPE_CHECKING:
    from spotcli.oracles import CorrectionRequest
    from spotcli.providers.replies import Reply

Reason = (
    Why
    | Literal[
        "no expression",
        "several expressions",
        "unreadable reference",
        "reference differs",
        "no equation",
        "step not recognised",
        "missing step",
        "extra step",
        "no boxed answer",
        "unexplained number",
        "ambiguous",
        "not exact",
        "nothing wrong",
    ]
)
"""Why there is no repair; rows are counted by it."""

REASONS: tuple[str, ...] = tuple(reason for part in get_args(Reason) for reason in get_args(part))

MAX_PROBLEM = 4_000
MAX_RESPONSE = 20_000
MAX_DECIMALS = 12
MAX_ITEMS = 40
MAX_READINGS = 4_000


@dataclass(frozen=True)
class Edit:
    """``response[start:end]``, which was ``old``, becomes ``new``."""

    start: int
    end: int
    old: str
    new: str


@dataclass(frozen=True)
class Repair:
    """A corrected answer."""

    text: str
    """The whole of it; outside the edits it is the response, character by character."""
    edits: tuple[Edit, ...]
    """In the order of the text; at least one."""
    first_step: int | None
    """The first equation that was changed, from 1; None where only the restated result was wrong."""
    slips: int
    """Mistakes that explain the edits; a wrong result that is carried on is one slip and several edits."""
    value: Fraction
    """The problem's true value, which the last box now holds."""


@dataclass(frozen=True)
class Declined:
    """No repair that is certain."""

    reason: Reason
    detail: str = ""


class _Decline(Exception):
    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason)
        self.reason: Reason = reason
        self.detail = detail


def repair(problem_text: str, response: str, reference: str | None = None) -> Repair | Declined:
    """The answer with its slips repaired, or why it is left alone.

    Args:
        problem_text: the question alone (of a chat: its last user turn), with one arithmetic expression in it.
        response: the worked answer; its result stands in a last ``\\boxed{}``.
        reference: the problem's known answer; the expression's value has to equal it.

    A ``Repair`` was read again: every equation is true and follows from the problem, and the last box holds the value.
    """
    if len(problem_text) > MAX_PROBLEM or len(response) > MAX_RESPONSE:
        return Declined("too long")
    # `1/2 + 1/3` has one operation or three, depending on what the slash is to the student: try both.
    slashed = re.search(r"[0-9]/[0-9]", f"{problem_text}\n{response}")
    found: list[Repair] = []
    refused: list[Declined] = []
    truths: set[Fraction] = set()
    for literal in (False, True) if slashed else (False,):
        try:
            asked = _problem(problem_text, reference, literal)
            truth = _truth(asked, reference)
            truths.add(truth)
            found.append(_repair(asked, truth, response, literal))
        except (_Decline, Unreadable) as no:
            refused.append(Declined(no.reason, no.detail))
    if len(truths) == 2 or len({one.text for one in found if one.slips == min(two.slips for two in found)}) == 2:
        return Declined("ambiguous", "the fractions can be read in two ways")
    if not found:
        return refused[0]
    best = min(found, key=lambda one: one.slips)
    return best if best.edits else Declined("nothing wrong")


def _truth(asked: Written, reference: str | None) -> Fraction:
    truth = value_of(asked.shape, [number.value for number in asked.numbers])
    if truth is None:
        raise _Decline("division by zero")
    if reference is not None and truth != _reference(reference):
        raise _Decline("reference differs", "the expression found in the problem has another value")
    return truth


def _repair(asked: Written, truth: Fraction, response: str, literal: bool) -> Repair:
    repaired = _align(asked, truth, response, literal)
    if repaired.edits and _align(asked, truth, repaired.text, literal).edits:
        raise _Decline("ambiguous", "the repaired answer does not read as right")
    return repaired


# What may be asked beside the expression where no reference answer confirms the reading.
_HARMLESS = re.compile(
    r"""what|what's|is|are|calculate|compute|evaluate|solve|find|simplify|work|working|out|the|value|results?|answer|of|for
    |please|step|by|steps|step-by-step|and|show|your|in|a|an|line|box|boxed|final|put|give|write|with|expression
    |following|this|one|at|time|each|on|its|own|to|question|problem|q|how|much|then|inside|x""",
    re.VERBOSE | re.IGNORECASE,
)


def _problem(text: str, reference: str | None, literal: bool) -> Written:
    # `Put the answer in \boxed{}` is an instruction.
    text = re.sub(r"\\boxed\s?\{[^{}]{0,40}\}", "box", text)
    found: dict[tuple[Shape, tuple[Fraction, ...]], Written] = {}
    numbers_beside = False
    try:
        for run in runs(text, literal):
            asked = run[:-1] if run[-1].kind == "equals" else run
            if any(token.kind == "operator" for token in asked):
                one = expression(asked)
                found[one.shape, tuple(number.value for number in one.numbers)] = one
            elif any(token.kind == "number" for token in asked):
                numbers_beside = True
    except Unreadable as no:
        if no.reason == "unreadable equation":
            raise _Decline("no expression", no.detail) from None
        raise
    if not found:
        raise _Decline("no expression")
    if len(found) > 1:
        raise _Decline("several expressions")
    if reference is None:
        words = re.findall(r"[^\W\d_](?:[^\W\d_]|['’-])*", re.sub(r"\\[A-Za-z]+", " ", text))
        if numbers_beside or not all(_HARMLESS.fullmatch(word) for word in words):
            raise _Decline("no expression", "the problem may ask for more than it, and no reference answer confirms it")
    return next(iter(found.values()))


def _reference(text: str) -> Fraction:
    bare = text.strip().removeprefix("\\boxed{") if len(text) < 200 else ""
    number = lone_number(bare, 0, len(bare) - (bare != text.strip() and bare.endswith("}")))
    if number is None:
        raise _Decline("unreadable reference")
    return number.value


# The state: what is left to work out, in truth and as the student says


@dataclass(frozen=True)
class Leaf:
    """A number of the state: the true value, the student's, and which of the problem's numbers it came from."""

    true: Fraction
    said: Fraction | None
    span: tuple[int, int]


@dataclass(frozen=True)
class State:
    leaves: tuple[Leaf, ...]
    shape: Shape
    """The true signs."""
    said: tuple[str, ...]
    """The student's signs."""

    def part(self, first: int, last: int) -> State:
        groups = {(a - first, b - first) for a, b in self.shape.groups if first <= a and b <= last}
        shape = Shape(self.shape.signs[first:last], real_groups(groups, last - first + 1))
        return State(self.leaves[first : last + 1], shape, self.said[first:last])

    def with_part(self, first: int, last: int, part: State) -> State:
        """The state in which ``part`` stands in place of these numbers."""
        leaves = self.leaves[:first] + part.leaves + self.leaves[last + 1 :]
        shift = len(part.leaves) - (last - first + 1)
        groups = {(a + first, b + first) for a, b in part.shape.groups}
        for a, b in self.shape.groups:
            if a <= first and last <= b:
                groups.add((a, b + shift))
            elif b < first:
                groups.add((a, b))
            elif a > last:
                groups.add((a + shift, b + shift))
        signs = self.shape.signs[:first] + part.shape.signs + self.shape.signs[last:]
        said = self.said[:first] + part.said + self.said[last:]
        return State(leaves, Shape(signs, real_groups(groups, len(leaves))), said)

    def reduced(self, at: int) -> State | None:
        """The state with the numbers on both sides of a sign worked out; None where that divides by zero."""
        left, right = self.leaves[at], self.leaves[at + 1]
        true = apply(left.true, self.shape.signs[at], right.true)
        if true is None:
            return None
        said = None
        if left.said is not None and right.said is not None:
            said = apply(left.said, self.said[at], right.said)
        leaf = Leaf(true, said, (left.span[0], right.span[1]))
        return self.with_part(at, at + 1, State((leaf,), Shape(()), ()))

    def reductions(self, operations: int) -> set[State]:
        """All states with that many operations left that can follow from this one."""
        found = {self}
        while found and len(next(iter(found)).said) > operations:
            found = {
                after
                for state in found
                for at in range(len(state.said))
                if may_reduce(state.shape, at, at + 1) and (after := state.reduced(at))
            }
        return found


@dataclass(frozen=True)
class Change:
    """A number or a sign of the answer, and what it has to be."""

    token: Number | Token
    truth: Fraction | str
    step: int
    after_operator: bool = False


@dataclass(frozen=True)
class Fit:
    """A written expression laid on a state."""

    state: State
    slips: int
    changes: tuple[Change, ...]
    far: bool = False
    """More than a third of it differs: it can hardly be meant."""


def _fit(written: Written, state: State, step: int, fresh: frozenset[tuple[int, int]] = frozenset()) -> Fit | None:
    """None where the expression has another form.

    ``fresh`` numbers are results; however wrong they are, they do not tell which numbers the step is about.
    """
    if len(written.numbers) != len(state.leaves):
        return None
    shape = written.shape
    copied = results = 0
    changes: list[Change] = []
    leaves: list[Leaf] = []
    for at, (number, leaf) in enumerate(zip(written.numbers, state.leaves, strict=True)):
        if number.value not in (leaf.true, leaf.said):
            if leaf.span in fresh:
                results += 1
            else:
                copied += 1
        if number.value != leaf.true:
            changes.append(Change(number, leaf.true, step, after_operator=at > 0))
        leaves.append(replace(leaf, said=number.value))
    wrong_signs = 0
    for token, sign, true, said in zip(written.operators, shape.signs, state.shape.signs, state.said, strict=True):
        wrong_signs += sign not in (true, said)
        if sign != true:
            changes.append(Change(token, true, step))
    if shape.groups != state.shape.groups and (
        shape.signs != state.shape.signs or tree_of(shape) != tree_of(state.shape)
    ):
        return None
    strange = copied + wrong_signs
    far = strange > max(1, (len(written.numbers) + len(written.operators)) // 3)
    return Fit(State(tuple(leaves), state.shape, shape.signs), strange + results, tuple(changes), far)


# The answer as a sequence of claims


@dataclass(frozen=True)
class Chain:
    """``e = e = ... = e``; a single expression is no claim, but has to be one of the state's."""

    parts: tuple[Written, ...]
    step: int
    """The how-many-th equation this is, from 1."""


@dataclass(frozen=True)
class Answer:
    text: str
    items: tuple[Chain | Number, ...]
    numbers: tuple[Number, ...]
    operators: tuple[Token, ...]


def _answer(text: str, literal: bool) -> Answer:
    items: list[Chain | Number] = []
    numbers: list[Number] = []
    operators: list[Token] = []
    steps = 0
    last_line = -2
    for run in runs(text, literal):
        if not any(token.kind == "number" for token in run):
            if any(token.kind == "equals" for token in run):
                raise _Decline("unreadable equation", "an equals sign without numbers")
            continue
        goes_on = False
        if run[0].kind == "equals":
            # At the start of a line it goes on with the line above; after words (`Total = 36`) it is a new claim.
            between = text[text.rfind("\n", 0, run[0].start) + 1 : run[0].start]
            goes_on = not between.strip(" \t$&\\") and run[0].line == last_line + 1
            run = run[1:]
        parts = tuple(expression(part) for part in split_at_equals(run))
        numbers += [number for part in parts for number in part.numbers]
        operators += [token for part in parts for token in part.operators]
        before = items[-1] if items else None
        if goes_on and isinstance(before, Chain):
            steps += len(before.parts) == 1
            items[-1] = replace(before, parts=before.parts + parts, step=steps)
        elif len(parts) == 1 and not parts[0].operators:
            items.append(parts[0].numbers[0])
        else:
            if not parts[0].operators:
                raise _Decline("unreadable equation", "nothing to work out on its left")
            steps += len(parts) > 1
            items.append(Chain(parts, steps))
        last_line = run[-1].line
        if len(items) > MAX_ITEMS:
            raise _Decline("too complex")
    if not any(isinstance(item, Chain) and len(item.parts) > 1 for item in items):
        raise _Decline("no equation")
    if not any(number.boxed for number in numbers):
        raise _Decline("no boxed answer")
    return Answer(text, tuple(items), tuple(numbers), tuple(operators))


# The search for the reading with the fewest slips


@dataclass(frozen=True)
class Reading:
    """How the items so far were understood."""

    state: State
    slips: int = 0
    swaps: int = 0
    order: tuple[tuple[int, int], ...] = ()
    """Which of the problem's numbers each equation worked out."""
    changes: tuple[Change, ...] = ()
    results: tuple[Leaf, ...] = ()
    """What was worked out, in truth and as said."""
    far: bool = False
    """A step can hardly be meant as it is read."""


@dataclass
class _Search:
    asked: Written
    items: tuple[Chain | Number, ...]
    best: list[Reading] = field(default_factory=list)
    tried: int = 0
    failed: tuple[int, Reason] = (-1, "step not recognised")
    """The item that the reading which came farthest failed at, and why."""

    def run(self) -> None:
        leaves = tuple(Leaf(one.value, one.value, (at, at)) for at, one in enumerate(self.asked.numbers))
        shape = self.asked.shape
        self._read(0, Reading(State(leaves, shape, shape.signs)))

    def _read(self, at: int, reading: Reading) -> None:
        if self.best and reading.slips > self.best[0].slips:
            return
        if at == len(self.items):
            if reading.state.said:
                self._fail(at, "missing step")
            elif not self.best or reading.slips < self.best[0].slips:
                self.best = [reading]
            else:
                self.best.append(reading)
            return
        item = self.items[at]
        for after in self._chain(at, item, reading) if isinstance(item, Chain) else self._claim(at, item, reading):
            self.tried += 1
            if self.tried > MAX_READINGS:
                raise _Decline("too complex")
            self._read(at + 1, after)

    def _fail(self, at: int, reason: Reason) -> None:
        if at > self.failed[0]:
            self.failed = (at, reason)

    def _claim(self, at: int, number: Number, reading: Reading) -> Iterator[Reading]:
        """A number in the prose, or in a box of its own: the result so far, or one of the problem's."""
        state = reading.state
        if number.boxed or not state.said:
            if state.said:
                self._fail(at, "missing step")
                return
            final = state.leaves[0]
            known = number.value in (final.true, final.said)
            if number.boxed or known:
                change = () if number.value == final.true else (Change(number, final.true, 0),)
                yield replace(reading, slips=reading.slips + (not known), changes=reading.changes + change)
                return
        truths = {one.value for one in self.asked.numbers} | {leaf.true for leaf in reading.results}
        meant = {leaf.true for leaf in reading.results if leaf.said == number.value != leaf.true}
        if number.value in truths and not meant:
            yield reading
        elif number.value not in truths and len(meant) == 1:
            yield replace(reading, changes=(*reading.changes, Change(number, meant.pop(), 0)))
        else:
            self._fail(at, "ambiguous" if meant else "unexplained number")

    def _chain(self, at: int, chain: Chain, reading: Reading) -> Iterator[Reading]:
        state, start = reading.state, chain.parts[0]
        size = len(start.operators)
        if not state.said:
            self._fail(at, "extra step")
        elif size > len(state.said):
            self._fail(at, "step not recognised")
        fitted = False
        for first in range(len(state.said) - size + 1):
            last = first + size
            if not may_reduce(state.shape, first, last):
                continue
            part = state.part(first, last)
            for swapped, fit in self._starts(start, part, chain.step):
                for after in self._follow(chain, 1, fit, swapped):
                    fitted = True
                    result = after.state.leaves
                    worked = len(chain.parts) > 1
                    yield Reading(
                        state.with_part(first, last, after.state) if worked or not swapped else state,
                        reading.slips + after.slips,
                        reading.swaps + swapped,
                        reading.order + ((part.leaves[0].span[0], part.leaves[-1].span[1]),) * worked,
                        reading.changes + after.changes,
                        reading.results + tuple(leaf for leaf in result if leaf.span[0] != leaf.span[1]),
                        reading.far or after.far,
                    )
        if not fitted:
            self._fail(at, "step not recognised")

    def _starts(self, start: Written, part: State, step: int) -> Iterator[tuple[bool, Fit]]:
        """The chain's first expression laid on a part of the state; a + b and a * b also the other way round."""
        if fit := _fit(start, part, step):
            yield False, fit
        if len(part.said) == 1 and part.shape.signs[0] in "+*" and part.leaves[0].true != part.leaves[1].true:
            left, right = part.leaves
            turned = State((replace(right, span=left.span), replace(left, span=right.span)), part.shape, part.said)
            if fit := _fit(start, turned, step):
                yield True, fit

    def _follow(self, chain: Chain, at: int, so_far: Fit, swapped: bool) -> Iterator[Fit]:
        """Lay the rest of the chain on what can follow from the expression before it."""
        if at == len(chain.parts):
            yield so_far
            return
        written = chain.parts[at]
        spans = {leaf.span for leaf in so_far.state.leaves}
        for state in so_far.state.reductions(len(written.operators)):
            fresh = frozenset(leaf.span for leaf in state.leaves if leaf.span not in spans)
            if fit := _fit(written, state, chain.step, fresh):
                slips, changes = so_far.slips + fit.slips, so_far.changes + fit.changes
                joined = Fit(fit.state, slips, changes, so_far.far or fit.far)
                yield from self._follow(chain, at + 1, joined, swapped)


def _align(asked: Written, truth: Fraction, text: str, literal: bool) -> Repair:
    """The answer repaired by its best reading; without edits where nothing is wrong."""
    answer = _answer(text, literal)
    search = _Search(asked, answer.items)
    search.run()
    if not search.best:
        raise _Decline(search.failed[1])
    best = search.best
    if any(reading.far for reading in best):
        raise _Decline("step not recognised")
    # `12 + 12` for 12 + 30 can be mended in either place: where the steps are agreed, the problem's order decides.
    if len({reading.order for reading in best}) == 1:
        best = [one for one in best if one.swaps == min(reading.swaps for reading in best)]
    # An earlier step may stand in a box too; the last box is the one that is graded.
    last_box = [number for number in answer.numbers if number.boxed][-1]
    held = {change.token: change.truth for change in best[0].changes}.get(last_box, last_box.value)
    if held != truth:
        raise _Decline("no boxed answer", "the last box holds an earlier result")
    style = _Style.of(asked, answer)
    edits = {style.edits(reading.changes) for reading in best}
    if len(edits) > 1:
        raise _Decline("ambiguous")
    chosen = edits.pop()
    changed = [change.step for change in best[0].changes if change.step]
    pieces, at = [], 0
    for edit in chosen:
        pieces += [text[at : edit.start], edit.new]
        at = edit.end
    return Repair("".join([*pieces, text[at:]]), chosen, min(changed, default=None), best[0].slips, truth)


# Writing numbers as the student writes them


@dataclass(frozen=True)
class _Style:
    text: str
    fractions: bool
    padded: bool
    comma: str
    minus: str
    glyphs: dict[str, str]

    @classmethod
    def of(cls, asked: Written, answer: Answer) -> _Style:
        numbers = [*answer.numbers, *asked.numbers]
        glyphs: dict[str, str] = {}
        for token in (*answer.operators, *asked.operators):
            glyphs.setdefault(OPERATORS[token.text], token.text)
        return cls(
            text=answer.text,
            fractions=any(number.style in ("fraction", "tex") for number in numbers),
            padded=any(number.padded for number in numbers),
            comma=next((number.comma for number in numbers if number.comma), ""),
            minus="−" if "−" in answer.text else "-",
            glyphs=glyphs,
        )

    def edits(self, changes: Sequence[Change]) -> tuple[Edit, ...]:
        found = set()
        for change in changes:
            token, truth = change.token, change.truth
            if isinstance(truth, str):
                new = self.glyphs.get(truth, truth)
            else:
                assert isinstance(token, Number)
                new = self.write(truth, token)
                if truth < 0 and change.after_operator and not token.minus and self.text[token.start - 1] != "(":
                    new = f"({new})"
            found.add(Edit(token.start, token.end, self.text[token.start : token.end], new))
        return tuple(sorted(found, key=lambda edit: edit.start))

    def write(self, value: Fraction, like: Number) -> str:
        """The value in the style of a number that it replaces."""
        sign = (like.minus or self.minus) if value < 0 else ""
        size = abs(value)
        if size.denominator > 1 and (like.style in ("fraction", "tex") or (like.style == "integer" and self.fractions)):
            over, under = size.numerator, size.denominator
            return f"{sign}\\frac{{{over}}}{{{under}}}" if like.style == "tex" else f"{sign}{over}/{under}"
        places = like.places if like.style == "decimal" and self.padded else 0
        while (size * 10**places).denominator > 1:
            places += 1
            if places > MAX_DECIMALS:
                raise _Decline("not exact", f"{value} has no short decimal form")
        digits = str(int(size * 10**places)).rjust(places + 1, "0")
        whole, decimals = (digits[:-places], digits[-places:]) if places else (digits, "")
        comma = like.comma or (self.comma if abs(like.value) < 1000 else "")
        if comma and len(whole) > 3:
            whole = f"{int(whole):,}".replace(",", comma)
        return f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"


class SymbolicOracle:
    """``repair`` as an oracle: free, offline, and silent about everything that it is not sure of."""

    name = "symbolic"
    version = "1"
    prompted = False
    parallel: int | None = 1

    async def correct(self, request: CorrectionRequest) -> Reply:
        """The repaired answer, or ``declined`` with one of ``REASONS``; costs nothing and never fails."""
        from spotcli.providers.replies import Reply

        sample = request.sample
        asked = next((turn["content"] for turn in reversed(sample.messages) if turn["role"] == "user"), "")
        result = repair(asked, sample.response, sample.answer)
        if isinstance(result, Declined):
            return Reply(finish_reason="declined", reason=result.reason, cost=0.0, model=self.name)
        return Reply(text=result.text, cost=0.0, model=self.name)

    async def close(self) -> None:
        """Nothing is open."""
