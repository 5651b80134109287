r"""The value that a sentence states: ``So Sarah will have saved $240 after 6 months.`` states $240.

Every value of a sentence has a role. Operands of a calculation and things that are already known ("the 5 friends") are
no answers; the circumstances of what is stated ("after 6 months") and another notation of a value ("3/8, or 37.5%")
may be. What remains is stated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from spotcli.grading.compare.quantities import read_compound
from spotcli.grading.compare.units import is_unit
from spotcli.grading.compare.words import factor_of
from spotcli.grading.extraction import FoundAnswer
from spotcli.grading.extraction.sentences import FORMULA, lowered, masked

_MAX_LENGTH = 600
"""Characters; a longer sentence is no statement of an answer."""
# Patterns of words are compared with text in lower case.
_EMPHASIS = re.compile(r"(?<![\w)])\*\*|\*\*(?![\w(])|__|`")
_MARK = "\ue000"
"""Takes the place of each character of a formula."""
_CURRENCY = r"(?:\\?[$\u20ac\u00a3\u20b9]\s?)"
_VALUE_PATTERN = (
    rf"{_MARK}+(?:\s?\\?%)?"
    rf"|(?<![\w.,/:^])[-+\u2212]?{_CURRENCY}?[-\u2212]?(?:\d{{1,3}}(?:,\d{{3}})++|\d++)(?:\.\d++)?"
    r"(?:(?::\d\d?)++(?:\s?[aApP]\.?[mM](?![a-zA-Z]))?|\s\d++/\d++|\s?/\s?\d++(?:\.\d++)?)?"
    r"(?:\s?[\u00d7x*]\s?10\s?\^\s?(?:\{-?\d{1,3}\}|\(-?\d{1,3}\)|-?\d{1,3}))?(?:\s?\\?%)?(?!\d|[.,:/]\d|st\b|nd\b|rd\b|th\b)"
)
_VALUE = re.compile(_VALUE_PATTERN)
_PLAIN_FORMULA = re.compile(
    r"[-\u2212]?(?:\d[\d.,]*\s?)?[\u03c0\u221a\u221b](?:[\w()\u00b2\u00b3\u2074/^.*\u03c0\u221a]|\s?[-+\u2212]\s?(?=[\d\u03c0\u221a]))*"
)
"""A number with a root or pi in plain characters: ``25\u03c0``, ``2\u221a3/3``."""
_CONTINUATION = re.compile(
    r"\s?[\u03c0\u221a\u221b^\u00b2\u00b3\u00bd\u00bc\u00be]|[A-Za-z\u0370-\u03ff]+|\(|\s[-+*/\u00d7\u00f7]\s"
)
_SUBORDINATE = re.compile(
    r",?\s+(?:since|because|as|which|where|so that|but not|rather than|instead of|if|when|given|assuming|while|whereas"
    r"|not|leaving|meaning|making)\b(?! (?:a|an) (?:result|total|whole)\b)"
)
"""The start of a clause after the main one."""
_LEADING_CLAUSE = re.compile(
    r"\W*(?:(?:so|thus|hence|therefore|then|now|finally)\b,?\s+)?(?:since|because|if|when|given|as|after|with|for|in"
    r"|at|by|from|on|during|out of)\b[^,]{0,160},\s|\W*(?:(?:so|thus),? )?to answer\b[^,:]{0,60}[:,]\s"
)
_CIRCUMSTANCE = re.compile(
    r"\b(?:after|before|in|within|for|at|of|per|from|with|on|under|over|between|than|during|every|by|until|among"
    r"|across|using|around|into|through)\s+(?:only\s+|just\s+|about\s+|the\s+|a\s+|an\s+)?$"
)
_PURPOSE = re.compile(r"\bto [a-z]{2,12}\s+(?:(?:the|a|an|all|another|up|for|its|his|her|their)\s+)*$")
"""A purpose after the stated value: "needs 2.5 hours to cover 1500 km"."""
_KNOWN = re.compile(
    r"\b(?:the|these|those|all|both|her|his|their|its|our|my|your|each|every|first|last|next|other|another|step|day"
    r"|week|year|month|part|case|problem|question|grade|room|number|no\.|chapter|page|figure|table)"
    r"(?:\s+(?:other|first|last|next|same))?\s+$"
)
_RESTATEMENT = re.compile(
    r"(?:[,(]\s*(?:or|i\.?e\.?,?|that is,?|equivalently,?|which is|about|approximately|roughly|\u2248|~)|\bor|\(|\u2248"
    r"|=)\s*(?:about\s+|approximately\s+|roughly\s+|exactly\s+|simply\s+)?$"
)
_NAME = re.compile(r"(?!.*\\text)[^\d\u03c0]*", re.DOTALL)
"""The content of a formula that names something: it has no digit and no words."""
_CHANGED = re.compile(
    r"[ \t-]*(?:[a-z]+\s+){0,2}?(?:or (?:more|less|fewer|greater|higher|lower)|times\b|squared|cubed|below|above"
    r"|and (?:a|one|two|three)\b|past\b|to \d|choose\b|factorial|!|divided|multiplied|plus|minus|mod\b|of [\d$]"
    rf"|of {_MARK}|(?:more|less|fewer) than (?:[\d$]|[a-z]\b)|[-+*/^\u00d7\u00f7](?!\w))"
)
"""Words after a value that make another one of it."""
_OPERATION = re.compile(
    r"\b(?:(?:square|cube|root|sum|product|difference|quotient|multiple|power|factorial|reciprocal|opposite|inverse)"
    r" of|root|double|twice|half|thrice|triple|quarter|third|negative|plus|minus|times|less|more)\b[^.;]{0,20}$"
    r"|[-+*/^\u00d7\u00f7]\s*$"
)
"""The end of a text before a value of which something else is computed: "the square of 7"."""
_CONTINUED = re.compile(r",?\s+(?:which|so that|leaving|making|meaning)\b")
"""The start of a subordinate clause that may state the result: ", which leaves him with $20."."""
_RANGE = re.compile(
    r"\b(?:greater|larger|bigger|smaller|less) than (?:or equal to )?[$\\(]*[\d.]+[$\\)]*\.?$"
    r"|\bbetween\s+[\d$\\][^.]{0,40}\band\b(?:(?!\b(?:is|are|was|equals|has)\b)[^.]){0,20}\.?\W*$"
)
_COPULA = re.compile(
    r"\b(?:is|are|was|were|be|equals?|equal to|comes to|amounts to|totals|total of|yields?|gives?|get|obtain|find)"
    r"(?:\s+(?:exactly|only|just|simply|approximately|about|roughly|therefore|thus|then|now|indeed))*\s*:?\s*$"
)
_CONCLUDES = re.compile(
    r"\W*(?:therefore|thus|hence|so|finally|consequently|altogether|overall|as a result|accordingly|in (?:conclusion"
    r"|total|all|summary)|this means|we (?:conclude|find|see))\b|.*\b(?:in total|altogether|in all)\W*$"
)
_SO = re.compile(r"\b(?:so|thus|hence|therefore)\b")
_NO_RESULT = re.compile(
    r"\b(?:if|when|where|suppose|assume|let|check|verify|note|recall|not|cannot|never|question|asked|book"
    r"|key|mod|modulo|case|consider|example|figure|equation|section|step|solutions?|would|could|might|may|first|next"
    r"|still need|formulas?|use|apply|method|theorem|need to (?:find|compute|calculate|know)|mistake|wrong|incorrect"
    r"|(?:initially|originally|at first),? (?:i|we|thought))\b|n['\u2019]t\b"
)
"""Words of a sentence that states no result."""
_SUBJECT = re.compile(r"\W*(?:(?:so|thus|hence|therefore|then|now|finally|in total|altogether|overall)\b\W*)*")
"""The text before a value that begins the subject of a sentence."""
_LIST = re.compile(r"\s*(?:[A-Za-z]+\s*)?(?:,|,?\s*\b(?:and|or)\b|&)\s*$")
_UNIT = re.compile(r"[ -]?((?:square|cubic|sq\.?|cu\.?)\s+)?([A-Za-z]+)(\s*(?:/|per)\s*[A-Za-z]+)?")


_ENDING = re.compile(
    rf"(.*\b(?:is|are|was|equals|becomes)\s+(?:equal to\s+)?)({_VALUE_PATTERN})((?:\s+[a-z]+){{0,3}})", re.DOTALL
)
"""A sentence whose verb is before its last value: "The remainder when 2^100 is divided by 7 is 2."."""
_HYPOTHESIS = re.compile(r"\b(?:if|suppose|assume|let|not|cannot|case|would|each|when\b[^,]*,|where\b[^,]*,)\b")


@dataclass(frozen=True, slots=True)
class _Value:
    start: int
    end: int
    text: str
    role: str
    """``stated``, ``restated``, ``circumstance`` or ``known``."""


@dataclass(frozen=True, slots=True)
class _Clause:
    """The main clause of a sentence: ``text[start:end]``; ``hidden`` is the text with marks in place of formulas."""

    text: str
    hidden: str
    words: str
    """``hidden`` in lower case."""
    start: int
    end: int
    next_words: str
    """The start of the subordinate clause after it; empty without one."""


def statement(sentence: str, announced: bool = False) -> FoundAnswer | None:
    """The only value that a sentence states, or None.

    ``announced``: the text before the sentence announces it as the answer; otherwise its words must conclude it.
    """
    if len(sentence) > _MAX_LENGTH or is_range(lowered(sentence)):
        return None
    clause = _main_clause(sentence)
    if ending := _value_after_verb(clause):
        return ending
    values = _values(clause, clause.start, clause.end)
    value = _only_stated(clause, values)
    if value is None or not _is_result(clause, value, announced):
        return None
    values += _values(clause, 0, clause.start) + _values(clause, clause.end, len(clause.hidden))
    outside = [other for other in values if not value.start <= other.start < value.end]
    others = tuple(other.text for other in outside if other.role != "known")
    after = clause.hidden[value.end : clause.end]
    return FoundAnswer(value.text + _unit(after), others=others, result=_result(value.text))


def _main_clause(sentence: str) -> _Clause:
    text = _without_emphasis(sentence).strip(" .!\n*:")
    if "\n" in text and not any("\n" in formula[0] for formula in FORMULA.finditer(text)):
        text = next(line for line in reversed(text.split("\n")) if line.strip())
    hidden = _hidden(text)
    words = lowered(hidden)
    leading = _LEADING_CLAUSE.match(words)
    start = leading.end() if leading and _VALUE.search(hidden, leading.end()) else 0
    cut = _SUBORDINATE.search(words, start + 1)
    return _Clause(text, hidden, words, start, cut.start() if cut else len(hidden), cut[0] if cut else "")


def _without_emphasis(text: str) -> str:
    return _EMPHASIS.sub("", text) if "**" in text or "__" in text or "`" in text else text


def _value_after_verb(clause: _Clause) -> FoundAnswer | None:
    """The value after the last verb of a conclusion: "So the remainder when 2^100 is divided by 7 is 2."."""
    ending = _ENDING.fullmatch(clause.hidden) if _CONCLUDES.match(clause.words) else None
    if not ending or _HYPOTHESIS.search(clause.words[: ending.end(1)]):
        return None
    content = clause.text[ending.start(2) : ending.end(2)]
    if ending[2][0] == _MARK and _NAME.fullmatch(content):
        return None
    earlier = _values(clause, 0, ending.start(2))
    if _CHANGED.match(ending[3]) or any(_COPULA.search(clause.words[: value.start]) for value in earlier):
        return None  # 5 or more; Ida is 14 and her brother is 7
    return FoundAnswer(content + _unit(ending[3]), result=_result(content))


def _only_stated(clause: _Clause, values: list[_Value]) -> _Value | None:
    """The only value of a clause that is stated; removes the value of the subject from ``values``."""
    stated = list({value.text: value for value in values if value.role == "stated"}.values())
    if not stated and len(values) == 1:
        stated = values[:]
    if len(stated) > 1 and (compound := _compound(clause.text, clause.hidden[: clause.end], stated)):
        return compound
    if len(stated) == 2:
        between = clause.hidden[stated[0].end : stated[1].start]
        if _SUBJECT.fullmatch(clause.words[clause.start : stated[0].start]) and not _LIST.search(between):
            values.remove(stated.pop(0))  # 3 boxes will contain 36 pencils
    return stated[0] if len(stated) == 1 else None


def _is_result(clause: _Clause, value: _Value, announced: bool) -> bool:
    """Whether a clause states its value as the result, and not something of which the result is computed."""
    words = clause.words
    before, after = words[clause.start : value.start], words[value.end : clause.end]
    continued = not announced and _CONTINUED.match(clause.next_words)
    if continued and _values(clause, clause.end, len(words)):
        return False
    next_word = _NEXT_WORD.match(clause.hidden, value.end, clause.end)
    computed = (
        "\\pm" in value.text  # an uncertainty, or two values
        or _OPERATION.search(_after_copula(before))
        or _CHANGED.match(after)
        or _NO_RESULT.search(words[clause.start : clause.end])
        or (next_word and factor_of(next_word[1]) is not None)
    )
    concluded = _SO.search(before) or _CONCLUDES.match(words) or _CONCLUDES.match(before) or _COPULA.search(before)
    return not computed and bool(announced or concluded)


_NEXT_WORD = re.compile(r"[ -]*([A-Za-z]+)")


def _hidden(text: str) -> str:
    """The text with every formula replaced by as many marks."""
    hidden = masked(text, _MARK)
    return hidden if text.isascii() else _PLAIN_FORMULA.sub(lambda formula: _MARK * len(formula[0]), hidden)


def is_range(words: str) -> bool:
    """Whether a sentence in lower case states only a range: "the answer lies between 4 and 5"."""
    return (" than " in words or "between" in words) and bool(_RANGE.search(words))


def is_complete(after: str) -> bool:
    """Whether a number ends before a text; false before the rest of a formula: ``25`` in ``25\u03c0`` or ``5x``."""
    rest = _CONTINUATION.match(after)
    return not rest or (rest[0].isalpha() and is_unit(rest[0]))


def several_values(sentence: str) -> tuple[str, ...]:
    """The values of a sentence that states several: "Maria is 14 years old and her brother is 7 years old."."""
    text = _without_emphasis(sentence[:_MAX_LENGTH])
    hidden = _hidden(text)
    words = lowered(hidden)
    cut = _SUBORDINATE.search(words, 1)
    end = cut.start() if cut else len(hidden)
    values = _values(_Clause(text, hidden, words, 0, end, ""), 0, end)
    if len(values) < 2:
        return ()
    stated = [v.text for v in values if v.role == "stated" and _COPULA.search(words[max(0, v.start - 60) : v.start])]
    return tuple(stated) if len(stated) > 1 else ()


def _after_copula(before: str) -> str:
    """The text between the verb of a sentence and its value, both in lower case."""
    return _VERB.split(before)[-1]


_VERB = re.compile(r"\b(?:is|are|was|were|be|equals?|has|have|gets?|needs?|makes?|takes?|costs?|pays?|earns?)\b|:")


def _compound(text: str, hidden: str, values: list[_Value]) -> _Value | None:
    """Values in several units as one value: ``3 hours and 20 minutes``."""
    last = values[-1]
    unit = _UNIT.match(hidden, last.end)
    content = text[values[0].start : unit.end() if unit else last.end]
    return (
        _Value(values[0].start, values[0].start + len(content), content, "stated") if read_compound(content) else None
    )


def _values(clause: _Clause, start: int, end: int) -> list[_Value]:
    """The values between two positions, with their roles; operands of a calculation are left out."""
    text, hidden, words = clause.text, clause.hidden, clause.words
    equals = hidden.rfind("=", start, end)
    values: list[_Value] = []
    for match in _VALUE.finditer(hidden, max(start, equals + 1), end):
        content = text[match.start() : match.end()]
        if match[0][0] == _MARK and _NAME.fullmatch(content):
            continue  # $x$ is the name of a value
        if match[0][0] != _MARK and not is_complete(hidden[match.end() : end]):
            return []
        role = _role(words[max(0, match.start() - 40) : match.start()], bool(values))
        values.append(_Value(match.start(), match.end(), content, role))
    return values


def _role(before: str, has_earlier: bool) -> str:
    """The role of a value by the text before it."""
    if has_earlier and _RESTATEMENT.search(before):
        return "restated"
    if _KNOWN.search(before):
        return "known"
    if has_earlier and _PURPOSE.search(before):
        return "circumstance"
    return "circumstance" if _CIRCUMSTANCE.search(before) else "stated"


def _unit(after: str) -> str:
    """The known unit at the start of a text."""
    unit = _UNIT.match(after)
    if not unit or not is_unit(unit[2]) or unit[2] == "in":
        return ""
    return f" \\text{{{unit[0].strip(' -')}}}"


def _result(value: str) -> str:
    sides = value.strip("$").removeprefix("\\(").removesuffix("\\)").split("=")
    return sides[-1].strip(" $.") if len(sides) > 1 else ""
