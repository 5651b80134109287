"""Graders by name: ``math``, ``choice``, ``coordinates``, ``instructions``, and a user's own checker.

``math`` is ``spotcli.grading.grade``, and ``coordinates`` is in a module of its own. This module grades choice letters
(GPQA), has a worker check instructions (IFEval), and calls checkers that a recipe names as ``package.module:function``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from spotcli.errors import UserError, install_command
from spotcli.grading import SECONDS, Grade, Grader, grade, grade_in_worker, is_long
from spotcli.grading.algebra.pool import WorkerLost, shared_pool
from spotcli.grading.compare.choices import leading_letter, letter_and_words, lone_letter, names_several
from spotcli.grading.coordinates import grade_coordinates
from spotcli.grading.find_answer import NoAnswer, find_answer, leading_choice
from spotcli.grading.latex import tidy


def grader_of(named: str | None, default: str = "math") -> Grader:
    """The grader that a row names, else ``default``, which the recipe names.

    A row may name only the built-in graders: a name with a colon is code to import, and data must not select code.

    Raises:
        UserError: the name is unknown, or it is a user's checker that the recipe does not name.
    """
    if named and ":" in named and named != default:
        raise UserError(
            f"a row names the checker {named}, but only a recipe may name a checker",
            where="grader",
            cure=f"-s grader={named}, if you trust it",
        )
    return get_grader(named or default)


def best_grade(grades: Iterable[Grade]) -> Grade:
    """The grade by several references: right if one of them is matched, wrong if none can be."""
    return min(grades, key=lambda grade: ("right", "undecided", "wrong").index(grade.verdict))


def grade_any(grader: Grader, response: str, references: Sequence[str]) -> Grade:
    """Grade a response by several references; the first one that is matched decides."""
    grades = []
    for reference in references:
        grades.append(grader(response, reference))
        if grades[-1].verdict == "right":
            break
    return best_grade(grades)


@cache
def get_grader(name: str) -> Grader:
    """The grader called ``math``, ``choice``, ``coordinates``, ``instructions``, or ``package.module:function``.

    Raises:
        UserError: the name is unknown, the checker cannot be imported, or a package that it needs is missing.
    """
    if name == "math":
        return grade
    if name == "choice":
        return _with_clock("choice", grade_choice)
    if name == "coordinates":
        return _with_clock("coordinates", grade_coordinates)
    if name == "instructions":
        _start_instruction_checkers()
        return grade_instructions
    if ":" in name:
        return _user_checker(name)
    raise UserError(
        f"unknown grader '{name}'",
        where="grader",
        cure="use math, choice, coordinates, instructions, or package.module:function",
    )


def _with_clock(task: Literal["choice", "coordinates"], grader: Grader) -> Grader:
    """The grader, but run in a worker where the texts are long."""

    def grade_with_clock(response: str, reference: str, /) -> Grade:
        if is_long(response, reference):
            return grade_in_worker(task, response, reference)
        return grader(response, reference)

    return grade_with_clock


# --- choice ---


_CHOICE_LENGTH = 1000
"""Characters of an answer that are searched for its letter."""


def grade_choice(response: str, reference: str) -> Grade:
    """Grade a choice letter. ``reference``: the letter, with or without parentheses and text: ``(C) Cecile``."""
    gold = reference_letter(reference)
    if gold is None:
        return Grade("undecided", "the reference is not a choice letter")
    try:
        answer = find_answer(response)
    except NoAnswer as problem:
        answer, reason = None, str(problem)
    else:
        reason = "no choice letter in the answer"
    letter = _choice_letter(answer.text) if answer else None
    if answer is None or letter is None:
        letter = leading_choice(response)
        if letter is None:
            return Grade("undecided", reason, answer.text[:200] if answer else None)
    elif letter != gold and answer.doubt:
        return Grade("undecided", answer.doubt, letter)
    return Grade("right" if letter == gold else "wrong", "", letter)


def reference_letter(reference: str) -> str | None:
    """The letter of a reference of ``choice``, in upper case; None if it is no choice letter."""
    bare = reference.strip()
    return _choice_letter(bare.upper() if len(bare) == 1 else reference)


def _choice_letter(text: str) -> str | None:
    try:
        text = tidy(text[:_CHOICE_LENGTH].strip(" \t\n'\"`*_[]"))
    except ValueError:
        return None
    if names_several(text):
        return None
    return lone_letter(text) or leading_letter(text) or letter_and_words(text)


# --- instructions ---


@dataclass(frozen=True, slots=True)
class InstructionResults:
    """Which instructions a response follows, one entry per instruction. A prompt passes if all entries are true."""

    strict: list[bool]
    loose: list[bool]


class NotChecked(Exception):
    """The instructions could not be checked; the message is the reason."""


def grade_instructions(response: str, reference: str) -> Grade:
    """IFEval: right if every instruction is followed, strictly. ``reference``: see ``check_instructions``."""
    try:
        results = check_instructions(response, reference)
    except NotChecked as problem:
        return Grade("undecided", str(problem))
    failed = [str(index) for index, passed in enumerate(results.strict) if not passed]
    if not failed:
        return Grade("right", "", "")
    return Grade("wrong", f"instructions {', '.join(failed)} not followed", "")


def check_instructions(response: str, reference: str, *, seconds: float = SECONDS) -> InstructionResults:
    """Check a response in a worker, with Google's IFEval checkers (package ``if-verifiable``).

    ``reference``: JSON with the fields ``prompt``, ``instruction_id_list`` and ``kwargs`` of the data set.

    Raises:
        NotChecked: the reference is invalid, or the check took longer than ``seconds``.
    """
    try:
        reply = shared_pool("instructions").ask(reference, response, seconds, "instructions")
    except WorkerLost as lost:
        raise NotChecked(str(lost)) from None
    if reply.result is None:
        raise NotChecked(reply.reason)
    if "error" in reply.result:
        raise NotChecked(reply.result["error"])
    return InstructionResults(**reply.result)


def _start_instruction_checkers() -> None:
    """Start the worker that checks instructions.

    Raises:
        UserError: it failed to load a package.
    """
    try:
        shared_pool("instructions").start()
    except WorkerLost as lost:
        raise UserError(
            f"the instruction checkers failed to start: {lost}",
            where="grader: instructions",
            cure=install_command("eval"),
        ) from None


# --- a user's own checker ---


def _user_checker(name: str) -> Grader:
    """A user's function ``package.module:function``, called as ``function(response, reference)``.

    It may return a Grade, a verdict, a bool, or None for undecided. If it raises, the answer is undecided.
    """
    module, _, function = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # the module may be in the current folder
    try:
        checker = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"failed to load the checker {name}: {error}",
            where=f"grader: {name}",
            cure="name it package.module:function, and make the module importable from the current folder",
        ) from error

    def grade_with_checker(response: str, reference: str, /) -> Grade:
        try:
            result = checker(response, reference)
        except Exception as error:
            return Grade("undecided", f"the checker raised {type(error).__name__}: {error}")
        if isinstance(result, Grade):
            return result
        if result is None or result == "undecided":
            return Grade("undecided", "the checker returned undecided")
        if result is True or result == "right":
            return Grade("right")
        if result is False or result == "wrong":
            return Grade("wrong")
        return Grade("undecided", f"the checker returned an invalid verdict: {result!r}")

    return grade_with_checker
