r"""Where the argument of a function ends: ``\sin x \cdot x`` is ``\sin(x) \cdot x``, as people read it.

Parsers of LaTeX disagree: some read the whole product as the argument. Therefore every function is rewritten with
brackets around its argument before a parser sees it. The argument is

* a group in braces, brackets or bars directly after the function: ``\log_2{8}(x+1)`` is ``\log_{2}(8)(x+1)``;
* otherwise the factors that follow without a sign between them: ``\sin 2x \cos x`` is ``\sin(2x) \cos(x)``.
"""

from __future__ import annotations

import re
from typing import Literal

Style = Literal["", "slash", "narrow"]
"""Where an argument without brackets ends."""
_FUNCTION = re.compile(
    r"\\(arc(?:sin|cos|tan|cot|sec|csc)|(?:sin|cos|tan|cot|sec|csc)h?|ln|log|lg|exp|Ci|Si)(?![A-Za-z])"
)
_INVERSE = re.compile(r"\^\s*(?:\{\s*-\s*1\s*\}|-1)")
_DECORATION = re.compile(r"\s*[_^]\s*(?:(?=\{)|\\[A-Za-z]+|[+-]?\d+|[A-Za-z])")
_LONG_INDEX = re.compile(r"_\s*(\d{2,})")
_SIMPLE_FACTOR = re.compile(
    r"\s*(?:\d+(?:\.\d+)?|[A-Za-z]|\\(?:alpha|beta|gamma|delta|epsilon|theta|lambda|mu|nu|pi|rho|sigma|tau|phi|psi"
    r"|omega|chi|xi|eta|zeta|kappa|Delta|Omega|Phi|Theta|infty)(?![A-Za-z]))"
)
_FRACTION_OR_ROOT = re.compile(r"\s*\\(?:frac|sqrt|binom)(?![A-Za-z])")
_EXPONENTIAL = re.compile(r"\s*e\s*\^")
_AFTER_FACTOR = re.compile(r"\s*(?:!+|'+|\^\s*\\circ)")
_NUMBER = re.compile(r"\s*(?:\d+(?:\.\d+)?|\\pi(?![A-Za-z]))\s*")
_SLASH_AND_NUMBER = re.compile(r"\s*/\s*(?:\d+(?:\.\d+)?|\\pi(?![A-Za-z]))")
_BRACKETS = {"{": "}", "(": ")", "[": "]"}


def with_arguments(latex: str, style: Style = "") -> str:
    r"""Rewrite a formula with brackets around every argument.

    ``style``: "slash": an argument continues after a slash before a number, as some people mean ``\sin \pi/6``;
    "narrow": it ends after its first symbol, as in ``\sin \theta v_0``.
    """
    rewritten: list[str] = []
    position = 0
    while function := _FUNCTION.search(latex, position):
        rewritten.append(latex[position : function.start()])
        text, position = _application(latex, function, style)
        rewritten.append(text)
    return "".join(rewritten) + latex[position:]


def readings(latex: str) -> list[str]:
    r"""The ways to read a formula: ``\sin \pi/6`` and ``1/2 \ln 3`` have two. The first is the most likely one."""
    texts = [with_arguments(latex)]
    if "/" in latex:
        texts += [
            with_arguments(latex, "slash"),
            with_arguments(_LEADING_RATIO.sub(r"\\frac{\1}{\2}", latex)),
        ]
    return list(dict.fromkeys(texts))


_LEADING_RATIO = re.compile(
    r"(?<![\w.}])(\d+)\s*/\s*(\d+)(?=\s*(?:\\(?!cdot|times|div|pm|mp|le|ge|ne|text|cup|cap|to)[a-z]|[A-Za-z(]))"
)


def _application(latex: str, function: re.Match[str], style: Style) -> tuple[str, int]:
    """A function with its argument in brackets, and the position after it."""
    name, position = function[1], function.end()
    decorations, position = _decorations(latex, position)
    if inverse := _INVERSE.fullmatch(decorations.strip()):
        decorations, name = decorations.replace(inverse[0], ""), f"arc{name}" if name in _TRIGONOMETRIC else name
    decorations = _LONG_INDEX.sub(r"_{\1}", decorations)
    argument, end = _argument(latex, position, style)
    if not argument:
        return latex[function.start() : position], position
    argument = with_arguments(argument, style)
    if name == "exp" and not decorations.strip():
        return f"e^{{{argument}}}", end
    if name == "lg":
        name, decorations = "log", "_{10}"
    return f"\\{name}{decorations}({argument})", end


_TRIGONOMETRIC = {"sin", "cos", "tan", "cot", "sec", "csc"}


def _decorations(latex: str, position: int) -> tuple[str, int]:
    """The powers and indices at a position."""
    start = position
    while mark := _DECORATION.match(latex, position):
        position = mark.end()
        if mark[0].rstrip()[-1] in "_^":
            position = _group_end(latex, position)
    return latex[start:position], position


def _argument(latex: str, position: int, style: Style) -> tuple[str, int]:
    """The argument at a position without its brackets, and the position after it; empty where none can be read."""
    while latex.startswith(" ", position):
        position += 1
    first = latex[position : position + 1]
    if first in _BRACKETS and first:
        end = _group_end(latex, position)
        return latex[position + 1 : end - 1], end
    if first == "|" and (bar := latex.find("|", position + 1)) > 0:
        return latex[position : bar + 1], bar + 1
    if function := _FUNCTION.match(latex, position):
        text, end = _application(latex, function, style)
        return text, end
    end = _factors_end(latex, position, style)
    if style == "slash" and end > position and (slash := _SLASH_AND_NUMBER.match(latex, end)):
        end = slash.end()
    return latex[position:end].strip(), end


def _factors_end(latex: str, position: int, style: Style) -> int:
    """The position after the factors that follow each other without a sign."""
    start = position
    while True:
        if position > start and _EXPONENTIAL.match(latex, position):
            return position  # \sin x e^x
        if factor := _SIMPLE_FACTOR.match(latex, position):
            end = factor.end()
        elif factor := _FRACTION_OR_ROOT.match(latex, position):
            end = _groups_end(latex, factor.end())
        elif latex.startswith("(", position) and start < position and _only_numbers(latex[start:position]):
            end = _group_end(latex, position)  # \sin 2(x+1)
        else:
            return position
        _, end = _decorations(latex, end)
        while mark := _AFTER_FACTOR.match(latex, end):
            end = mark.end()
        if style == "narrow" and factor and not _NUMBER.fullmatch(factor[0]):
            return end
        position = end


def _only_numbers(text: str) -> bool:
    return not _NUMBER.sub("", text)


def _groups_end(latex: str, position: int) -> int:
    while latex[position : position + 1] in ("{", "["):
        position = _group_end(latex, position)
    return position


def _group_end(latex: str, start: int) -> int:
    """The position after the group that opens at ``start``; the end of the text if it is not closed."""
    depth = 0
    for position in range(start, len(latex)):
        if latex[position] in _BRACKETS:
            depth += 1
        elif latex[position] in _BRACKETS.values():
            depth -= 1
            if depth == 0:
                return position + 1
    return len(latex)
