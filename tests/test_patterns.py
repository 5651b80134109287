"""No text from outside can make one of our patterns slow, and no such text is ever used as a pattern.

Python's engine tries all ways in which a text can match. If their number grows with the text, a long text takes
minutes. Each pattern of the package is searched here in texts that are made for it: what comes before one of its
repeats, then what the repeat matches, many times.
"""

from __future__ import annotations

import ast
import importlib
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from re import _constants as codes  # type: ignore[attr-defined]  # typeshed leaves out the module
from re import _parser as parser  # type: ignore[attr-defined]  # typeshed leaves out the module
from typing import Any

import pytest

from tests.test_architecture import MODULES, TREES

LENGTH = 100_000
"""A pattern that takes the square of this needs 5e9 steps, half a minute and more; a linear one needs milliseconds."""
SECONDS = 2.0
"""Processor time for one text, whatever else the machine does."""

BOUNDED = {
    "grading.algebra.worker": "runs under the worker's clock",
    "grading.algebra.sympy_compare": "runs under the worker's clock",
    "grading.algebra.function_arguments": "runs under the worker's clock",
    "grading.extraction": "longer texts are searched under the worker's clock",
    "grading.compare": "answers of at most 1000 characters, in one line",
    "grading.latex": "answers of at most 1000 characters",
    "grading.find_answer": "longer texts are searched under the worker's clock",
    "grading.coordinates": "longer texts are searched under the worker's clock",
    "oracles.symbolic": "at most MAX_RESPONSE characters and MAX_TOKENS tokens",
    "inspection.pair_filter": "the user's own --where",
    "providers.request_errors": "the first 4000 characters of a message",
    "training.cluster": "the user's own environment",
    "sampling.shards": "names of files",
    "policies.fingerprint": "names of files",
}
"""Modules whose patterns never see a long text outside of a worker, each with its reason."""

SPACES = "a1 \n(.,\\{$*_-`"
"""Characters that are tried where a pattern excludes some."""


def examples_of(code: Any, value: Any) -> list[str]:
    """Characters that one element of a pattern matches."""
    if code is codes.LITERAL:
        return [chr(value)]
    if code is codes.CATEGORY:
        shape = {codes.CATEGORY_SPACE: r"\s", codes.CATEGORY_NOT_SPACE: r"\S", codes.CATEGORY_DIGIT: r"\d"}
        shape |= {codes.CATEGORY_NOT_DIGIT: r"\D", codes.CATEGORY_WORD: r"\w", codes.CATEGORY_NOT_WORD: r"\W"}
        return re.findall(shape[value], SPACES)[:3]
    if code is codes.IN and value[0][0] is not codes.NEGATE:
        return [text for element in value for text in examples_of(*element)][:4]
    if code is codes.RANGE:
        return [chr(value[0])]
    # Any character, or any but some: a superset is good enough for a text that shall fail to match.
    return list("a \n(")


def examples(pattern: Any) -> list[str]:
    """A few short texts that a parsed pattern matches."""
    texts = [""]
    for code, value in pattern:
        if code in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
            parts = [text * value[0] for text in examples(value[2])]
        elif code is codes.SUBPATTERN:
            parts = examples(value[3])
        elif code is codes.ATOMIC_GROUP:
            parts = examples(value)
        elif code is codes.BRANCH:
            parts = [examples(branch)[0] for branch in value[1]][:4]
        elif code in (codes.ASSERT, codes.ASSERT_NOT, codes.AT, codes.GROUPREF):
            parts = [""]
        else:
            parts = examples_of(code, value)
        texts = list(dict.fromkeys(text + part for text in texts[:2] for part in parts))[:4]
    return texts


def repeats(pattern: Any, before: list[str]) -> Iterator[tuple[str, str]]:
    """What can come before each unlimited repeat of a parsed pattern, and what it repeats."""
    for code, value in pattern:
        if code in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
            if value[1] is codes.MAXREPEAT:
                yield from ((start, text) for start in before[:2] for text in examples(value[2]) if text)
            yield from repeats(value[2], before)
        elif code is codes.SUBPATTERN:
            yield from repeats(value[3], before)
        elif code in (codes.ASSERT, codes.ASSERT_NOT):
            yield from repeats(value[1], before)
        elif code is codes.ATOMIC_GROUP:
            yield from repeats(value, before)
        elif code is codes.BRANCH:
            for branch in value[1]:
                yield from repeats(branch, before)
        before = [start + text for start in before[:2] for text in examples([(code, value)])][:4]


def hostile_texts(pattern: re.Pattern[str], length: int = LENGTH) -> Iterator[str]:
    """Texts on which a pattern is slow, if it is slow on any."""
    texts = set()
    for before, body in repeats(parser.parse(pattern.pattern, pattern.flags), [""]):
        for unit in {body, before + body}:
            texts |= {start + unit * (length // len(unit)) + "\0!" for start in ("", before, "\n" + before)}
    yield from sorted(texts)


@dataclass(frozen=True)
class Use:
    """A pattern, and whether it is only tried at the start of a text."""

    pattern: re.Pattern[str]
    at_start: bool

    def search(self, text: str) -> int:
        """Use the pattern on a text; return the number of matches."""
        if self.at_start:
            return bool(self.pattern.match(text)) + bool(self.pattern.fullmatch(text))
        return sum(1 for _ in self.pattern.finditer(text))


AT_START = {"match", "fullmatch"}


def patterns_of(name: str) -> list[Use]:
    """The patterns of a module: those that it compiles, and the literal ones in its functions."""
    module = importlib.import_module(f"spotcli.{name}")
    source = MODULES[name].read_text(encoding="utf-8")
    uses = []
    for constant, value in vars(module).items():
        values = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
        methods = set(re.findall(rf"\b{constant}\.(\w+)\(", source))
        for item in values:
            uses += [
                Use(part, bool(methods) and methods <= AT_START)
                for part in (item if isinstance(item, tuple) else [item])
                if isinstance(part, re.Pattern) and isinstance(part.pattern, str)
            ]
    for call in pattern_calls(TREES[name]):
        function = ast.unparse(call.func).removeprefix("re.")
        if isinstance(call.args[0], ast.Constant) and function != "compile":
            flags = [ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg == "flags"]
            flags += [text for text in map(ast.unparse, call.args) if re.match(r"re\.[A-Z]+$", text)]
            total = sum(getattr(re, flag.removeprefix("re.")) for flag in flags)
            uses.append(Use(re.compile(str(call.args[0].value), total), function in AT_START))
    return uses


def pattern_calls(tree: ast.Module) -> list[ast.Call]:
    """Calls of functions of ``re`` that take a pattern."""
    takes_pattern = re.compile(r"re\.(compile|search|match|fullmatch|finditer|findall|split|sub|subn)$")
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in calls if takes_pattern.match(ast.unparse(call.func))]


class Slow(Exception):
    """A text took too long."""


@pytest.fixture
def clock() -> Iterator[Callable[[float], object]]:
    """Sets the processor time after which ``Slow`` is raised; 0 turns it off."""

    def ring(_signal: int, _frame: object) -> None:
        raise Slow

    before = signal.signal(signal.SIGVTALRM, ring)
    yield partial(signal.setitimer, signal.ITIMER_VIRTUAL)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)


def is_bounded(name: str) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in BOUNDED)


SEARCHED = [name for name, tree in TREES.items() if not is_bounded(name) and pattern_calls(tree)]


@pytest.mark.parametrize("name", SEARCHED)
def test_no_text_makes_a_pattern_slow(name: str, clock: Callable[[float], object]) -> None:
    for use in patterns_of(name):
        for text in hostile_texts(use.pattern):
            clock(SECONDS)
            try:
                use.search(text)
            except Slow:
                pytest.fail(f"{use.pattern.pattern!r} is slow on {text[:60]!r}")
            finally:
                clock(0)


@pytest.mark.parametrize("pattern", [r"\s*[#*_\s]*(?:the )?x", r"```\n(.*?)\n?[^\S\n]*```$", r"(\\+)[a-z]"])
def test_a_slow_pattern_gets_a_text_that_it_is_slow_on(pattern: str, clock: Callable[[float], object]) -> None:
    use = Use(re.compile(pattern, re.DOTALL), at_start=False)
    searches = (use.search(text) for text in list(hostile_texts(use.pattern)))
    clock(SECONDS / 4)
    with pytest.raises(Slow):
        list(searches)


LITERAL_PARTS = {
    "_COMMA.pattern", "COMMAND.pattern", "FORMULA.pattern", "WORD.pattern", "''.join(_RAISED)", "''.join(_LOWERED)",
}  # fmt: skip
"""Texts of ours that are put into patterns, besides constants."""
CONSTANT = r"_?[A-Z][A-Z_]*"
ESCAPED = {
    "grading.coordinates": {"re.escape(label)"},
    "repair.judge": {"re.escape(answer)"},
    "sampling.shards": {"re.escape(output.stem)", "re.escape(output.suffix)"},
    "core.hunks": {"re.escape(markers(student)[2])", "change", "by"},
    "providers.permanent_errors": {"word"},  # an escaped name
    "redaction": {"starts"},  # escaped
}
"""Parts of patterns that come from outside; the markers of edits consist of ``@`` and ``=``."""


@pytest.mark.parametrize("name", MODULES)
def test_no_text_from_outside_becomes_a_pattern(name: str) -> None:
    raw = []
    for call in pattern_calls(TREES[name]):
        pattern = call.args[0]
        if isinstance(pattern, ast.JoinedStr):
            parts = {ast.unparse(part.value) for part in pattern.values if isinstance(part, ast.FormattedValue)}
            parts = {part for part in parts if not re.fullmatch(CONSTANT, part)}
            raw += sorted(parts - LITERAL_PARTS - ESCAPED.get(name, set()))
        elif not isinstance(pattern, ast.Constant) and not re.fullmatch(CONSTANT, ast.unparse(pattern)):
            raw.append(ast.unparse(pattern))
    # Of tables of literals in the same file, or escaped before.
    ours = {
        "grading.latex": ["pattern"], "training.rank": ["words"], "policies.models": ["words"],
        "providers.permanent_errors": ["word"],
        "repair.damage": ["re.escape(character)"],
    }  # fmt: skip
    assert raw == ours.get(name, [])


@pytest.mark.parametrize("name", MODULES)
def test_no_text_from_outside_is_a_format_or_a_glob(name: str) -> None:
    constants = r"_?[A-Z][A-Z_]*(?:\.[a-z]+)?|form\.entry|_FORM_REWRITE if .* else _FORM_EDITS|cure"
    for node in ast.walk(TREES[name]):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        called, owner = node.func.attr, ast.unparse(node.func.value)
        if called == "format" and not isinstance(node.func.value, ast.Constant):
            assert re.fullmatch(constants, owner), owner
        if called in ("glob", "rglob", "fnmatch", "from_string", "substitute"):
            assert isinstance(node.args[0], ast.Constant), ast.unparse(node)
