r"""The result in which a solution ends: ``Therefore, the area is $12\pi$.``, or ``He pays 3*4 = $12 in total.``"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import islice

from spotcli.grading.compare.words import NUMBER_WORDS, changing_words, factor_of
from spotcli.grading.extraction import FoundAnswer
from spotcli.grading.extraction.sentences import (
    DIGIT,
    FORMULA,
    has_value,
    is_wrong,
    lowered,
    sentences_of,
    without_formulas,
    words_of,
)
from spotcli.grading.extraction.statements import is_complete, is_range, several_values, statement

_NEAR_END = 1500
"""Characters at the end of a text in which its conclusion is searched."""
# Patterns of words are compared with text in lower case.
_CONCLUDING = re.compile(
    r"\b(?:therefore|thus|hence|so|finally|consequently|altogether|conclude|in (?:conclusion|total|all|summary))\b"
)
_PREDICATE = re.compile(
    r"(?:\b(?:it|that|which|there)['\u2019]s"
    r"|\b(?:should|must|will|would|can|could|may|needs? to|ha[sd] to|have to)\s+[a-z]{2,15}"
    r"|\b(?:is|are|be|was|were|equals?|equal to|get|gets|obtain|obtains|have|has|find|yields?|gives?|becomes?"
    r"|exactly|only|just|simply|approximately|about|to|total|total of|therefore|thus|hence|so|makes?|takes?|needs?"
    r"|leaves?|pays?|costs?|earns?|keeps?|spends?|receives?|saves?|owes?|weighs?|remains?"
    r"|made|took|needed|left|paid|earned|kept|spent|received|saved|owed|weighed|got|sold|bought|used|uses?)"
    r"(?:\s+(?:him|her|them|it|us|me|you))?"
    r"|[=:,]|^)[\s*_]*$"
)
_PREDICATE_LENGTH = 60
"""Characters before a value that are searched for its predicate."""
_IS = re.compile(
    r"(?:\b(?:it|that|which|there)['\u2019]s"
    r"|\b(?:is|are|be|was|were|equals?|equal to|exactly|only|just|simply|total of))"
    r"(?:\s+(?:in fact|indeed|actually|then|thus|therefore))*[\s*_:]*$"
)
_DENIED = re.compile(r"\b(?:not|n't|cannot|never)(?:\s+(?:be|equal|simply|just))*\s+[$\\(\[]*[\d.,/-]+[$)\]]*\W*$")
"""The end of a sentence that denies its value: "The answer cannot be 7."."""
_TRAILING_FORMULA = re.compile(rf"(?P<before>.*?)(?P<formula>{FORMULA.pattern})(?P<after>[^$\\]*)$", re.DOTALL)
_ENVIRONMENT = re.compile(r"\\begin\{(align|aligned|alignat|gather|gathered|eqnarray|equation|split|multline)\*?\}")
_NUMBER = r"[-+]?(?:\\?[$€£₹]\s*)?[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s*/\s*\d+)?(?:\s*\\?%)?"
_EQUALS_NUMBER = re.compile(rf"=\s*(?P<value>{_NUMBER})(?P<after>[^=\d]*)$")
_NOT_FINAL = re.compile(
    r"\b(?:if|when|where|suppose|assume|let|at|since|because|check|verify|note|recall|as|for|not|cannot|than|"
    r"question|asked|book|key|mod|modulo|there are|solutions?|case|consider|example|figure|step|equation|section)\b"
)
_CLAUSE_END = re.compile(r"[.;:\n]|,\s")


def conclusion(text: str, doubt: str = "") -> FoundAnswer | None:
    """The value in which a text ends, or None.

    ``doubt``: see ``FoundAnswer``. Without one, the conclusion itself decides: a sentence that ends in "is <value>" or
    in a plain calculation states the answer, and any other last value is the answer only if it equals the reference.
    """
    end = text[max(0, len(text) - _NEAR_END) :]
    sentences = sentences_of(end, last=_SEARCHED + 2)
    if len(sentences) > 1 and sentences[-1].startswith("("):  # a remark
        sentences.pop()
    for sentence in reversed(sentences[-_SEARCHED:]):
        if has_value(sentence):
            words = lowered(sentence)
            if _is_denied(words) or is_range(words) or is_wrong(words):
                return None
            answer = _value_at_end(sentence.rstrip(" .!\n*"), doubt)
            if answer and answer.doubt == NO_STATEMENT and _is_computed(end, sentences, sentence):
                return replace(answer, doubt="")
            return _with_statement(answer, sentence, doubt, text)
        if len(words_of(sentence)) > 12:
            return None
    return None


def _is_denied(words: str) -> bool:
    """Whether a sentence in lower case denies the value in which it ends."""
    return ("not" in words or "n't" in words or "never" in words) and bool(_DENIED.search(words))


_SEARCHED = 3
"""Sentences that are searched, from the last one."""
_ANY_NUMBER = re.compile(r"\d[\d.,/]*")


def _with_statement(answer: FoundAnswer | None, sentence: str, doubt: str, text: str) -> FoundAnswer | None:
    """The value at the end of a sentence of a text in view of what the sentence states."""
    if answer and answer.doubt != NO_STATEMENT:
        several = several_values(sentence) if not answer.doubt else ()
        return replace(answer, others=(*several, ", ".join(several))) if several else answer
    only = len(list(islice(_ANY_NUMBER.finditer(text), 2))) == 1
    stated = statement(sentence, announced=only and _is_predicate(sentence))
    if stated is None or (answer and _key(stated.text) != _key(answer.text)):
        return answer
    return replace(stated, doubt=doubt)


def _is_predicate(sentence: str) -> bool:
    """Whether a verb is before the first number of a sentence."""
    number = _ANY_NUMBER.search(sentence)
    before = sentence[max(0, number.start() - _PREDICATE_LENGTH) : number.start()] if number else ""
    return bool(_PREDICATE.search(lowered(before.rstrip("$\\( *"))))


def _key(text: str) -> str:
    return re.sub(r"\\[()\[\]]|\\text|[\s${}.,]|[^\W\d_]{2,}", "", text)


_SIGNED_NUMBER = re.compile(_NUMBER)
_COMPUTED = re.compile(rf"=\s*(?P<value>{_NUMBER})[^\d=]{{0,40}}$")


def _is_computed(text: str, sentences: list[str], last: str) -> bool:
    """Whether the only number of the last sentence of a text is the result of the calculation before it."""
    if text.count(last) > 1:  # the first place counts
        sentences = sentences_of(text)
    before = sentences[: sentences.index(last)]
    result = _COMPUTED.search(before[-1]) if before else None
    if not result or _NOT_FINAL.search(lowered(last)):
        return False
    return _SIGNED_NUMBER.findall(last) == [result["value"]]


NO_STATEMENT = "the text ends in a value, but does not state that it is the answer"


_TERM = (
    r"(?:(?:sqrt|sin|cos|tan|ln|log|exp)\([^()]{1,40}\)|\([^()]{1,40}\)|\d+(?:\.\d+)?|pi(?![a-z])|[a-zA-Z](?![a-zA-Z]))"
    r"(?:\^(?:[\w.]{1,9}|\{[^{}]{1,20}\}|\([^()]{1,20}\))|[\u00b2\u00b3\u2074])?"
)
_PLAIN_FORMULA = re.compile(
    rf"\b(?:is|are|becomes?|get|obtain|have|gives?|find|yields?|equals)\s+(?:that\s+)?(?P<formula>(?=[^$]*[a-zA-Z(])"
    rf"(?:[a-zA-Z](?:_\w|\([a-z]\))?\s?[=<>\u2264\u2265]\s?)?-?{_TERM}(?:\s?[-+*/\u00b7]?\s?{_TERM}){{1,12}})$"
)
"""A formula in plain characters at the end of a sentence: "the equation of the line is y = 2x - 3"."""


def _value_at_end(sentence: str, doubt: str) -> FoundAnswer | None:
    if plain := None if sentence.endswith("$") else _PLAIN_FORMULA.search(sentence):
        sides = _top_level_sides(plain["formula"])
        result = sides[-1].strip() if len(sides) > 1 else ""
    if plain and not _SIGNED_NUMBER.fullmatch(result):  # s = 40 is read below
        before = sentence[: plain.start()].replace("equation of", "line of")
        sure = _CONCLUDING.search(lowered(sentence)) and not _NOT_FINAL.search(lowered(before))
        return FoundAnswer(plain["formula"], doubt=doubt or ("" if sure else NO_STATEMENT), result=result)
    formula = _TRAILING_FORMULA.match(sentence)
    if formula and not DIGIT.search(formula["after"]) and len(words_of(formula["after"])) <= 8:
        if answer := _of_formula(formula, doubt):
            return answer
        words = lowered(sentence)
        earlier = [
            part
            for part in FORMULA.finditer(sentence)
            if _PREDICATE.search(words[max(0, part.start() - _PREDICATE_LENGTH) : part.start()].rstrip())
        ]
        content = _without_delimiters(earlier[-1][0]) if earlier else ""
        return _of_equation(content, doubt or NO_STATEMENT) if content else None
    environment = _ENVIRONMENT.search(sentence)
    if environment and "\\end{" in sentence:
        return _of_equation(sentence[environment.end() :].partition("\\end{")[0], doubt or NO_STATEMENT)
    return _of_number(sentence, doubt)


def _of_formula(sentence: re.Match[str], doubt: str) -> FoundAnswer | None:
    before, after = sentence["before"].rstrip(), sentence["after"].strip()
    content = _without_delimiters(sentence["formula"])
    if environment := _ENVIRONMENT.search(content):
        content = content[environment.end() :].partition("\\end{")[0]
    words = lowered(before)
    near = max(0, len(words) - _PREDICATE_LENGTH)
    predicate = _PREDICATE.search(words, near) or _PREDICATE.search(words)
    if not predicate and "=" not in content:
        return None
    if not doubt and not _is_sure(before, words, after, predicate is not None):
        doubt = NO_STATEMENT
    return _of_equation(content, doubt, unit_after(after))


def _is_sure(before: str, words: str, after: str, predicate: bool) -> bool:
    """Whether a sentence states the value between two texts as the answer.

    ``words``: the text before the value in lower case. ``predicate``: whether a verb is before the value.
    """
    if not _IS.search(words) and not (predicate and _CONCLUDING.search(words)):
        return False
    last_clause = _CLAUSE_END.split(without_formulas(before))[-1]
    return (not _NOT_FINAL.search(lowered(last_clause)) and len(words_of(after)) <= 3) or _is_closing(before, after)


def _without_delimiters(formula: str) -> str:
    content = formula.strip("$").removeprefix("\\(").removesuffix("\\)")
    return content.removeprefix("\\[").removesuffix("\\]").strip(" \n.,")


_ADVERB = re.compile(r"\b(?:left over|over|left|remaining|in total|in all|altogether|overall)$")
MAX_UNIT_WORDS = 3
"""Words after a value that may be its unit."""


def unit_after(text: str) -> str:
    """The words after a value, if they may be its unit."""
    text = _ADVERB.sub("", text.strip(" .*\n")).strip()
    short = re.fullmatch(r"[A-Za-z ]{1,30}", text) and len(text.split()) <= MAX_UNIT_WORDS
    return f" \\text{{ {text}}}" if short else ""


def whole_answer(text: str) -> FoundAnswer:
    """A text that contains only an answer; a long equation may be a derivation that ends in it."""
    content = _without_delimiters(text.strip(" ."))
    sides = _top_level_sides(content)
    parts = [_top_level_sides(part) for part in _PART_END.split(content)]
    long = (
        any(len(part) > 2 and not all(map(_ARITHMETIC.fullmatch, part[1:])) for part in parts)
        or (len(sides) > 1 and len(text) > 60)
        or _CONDITION.match(text)
    )
    if len(parts) > 1 and all(len(part) == 2 for part in parts):  # x = 3 and y = 5
        return FoundAnswer(text, doubt=NO_STATEMENT if long else "")
    return FoundAnswer(text, doubt=NO_STATEMENT if long else "", result=sides[-1].strip() if len(sides) > 1 else "")


def right_side(text: str) -> str:
    """The last side of an equation; empty for another text."""
    sides = _top_level_sides(_without_delimiters(text.strip(" .")))
    return sides[-1].strip() if len(sides) > 1 else ""


_ARITHMETIC = re.compile(
    r"(?:[\d\s.+*/()$%-]|\\(?:times|cdot|div|,|%|\$|left|right|[dt]?frac\s*\{\d+\}\s*\{\d+\}|sqrt\s*\{[\d\s.+*/-]+\})|\^\{?\d+\}?)*+"
)
"""A calculation with numbers alone."""
_PART_END = re.compile(r"[,;]|(?<![A-Za-z])(?:and|or)(?![A-Za-z])|\\text\s*\{\s*(?:and|or)\s*\}")
_CONDITION = re.compile(r"\s*(?:when|if|at|since|for)\b", re.IGNORECASE)


_ROW_END = re.compile(r"\\\\(?:\[[^\]]*\])?|\\newline")
_CONTENT = re.compile(r"[\w}]")


def _of_equation(content: str, doubt: str, unit: str = "") -> FoundAnswer | None:
    """A formula, or the right side of the last of several rows."""
    rows = [row for row in _ROW_END.split(content) if row.strip()]
    if not rows:
        return None
    last = rows[-1].replace("&", " ").strip(" \n.,")
    sides = _top_level_sides(last)
    result = sides[-1].strip() if len(sides) > 1 else ""
    if not last or not _CONTENT.search(last):
        return None
    if len(rows) > 1 and result:  # the left side is in an earlier row
        last, result = result, ""
    return FoundAnswer(last + unit, doubt=doubt, result=result and result + unit)


_RELATIONS = r"\\(?:approx|equiv|Rightarrow|implies|simeq)(?![a-z])"
_RELATION = re.compile(_RELATIONS)
_EQUATION_MARK = re.compile(rf"[{{(\[]|[}})\]]|{_RELATIONS}|(?<![<>!])=|\\.")


def _top_level_sides(text: str) -> list[str]:
    r"""The sides of an equation, split at ``=``, ``\approx``, ``\equiv`` and arrows outside of braces."""
    if "=" not in text and not _RELATION.search(text):
        return [text]
    sides, depth, start = [], 0, 0
    for mark in _EQUATION_MARK.finditer(text):
        if mark[0] in "{([":
            depth += 1
        elif mark[0] in "})]":
            depth -= 1
        elif depth <= 0 and (mark[0] == "=" or len(mark[0]) > 2):
            sides.append(text[start : mark.start()])
            start = mark.end()
    return [*sides, text[start:]]


_CLOSING = re.compile(
    r"[\s*_]*(?:therefore|thus|hence|so|finally|consequently|altogether|in (?:conclusion|total|all|summary))\b"
)
_THERE_ARE = re.compile(r"\bthere (?:are|is|will be|were)\b")
_MORE = re.compile(r"[^\W\d_ ]*\s*\b(?:more|fewer|less)\b[^\d$\\]*\bthan\b")
_PURPOSE = re.compile(r"\bto [a-z]+")
_CLOSING_WORDS = 10
"""Words after a value in the sentence that states it as the result."""


def _is_closing(before: str, after: str) -> bool:
    """Whether a sentence states its only value as the result: "So she needs 4 cans of paint to cover the wall."."""
    beginning = lowered(before)
    if not _CLOSING.match(beginning) or has_value(after):
        return False
    words = words_of(after)
    return bool(
        len(words) <= _CLOSING_WORDS
        and (_MORE.match(after.strip()) or not changing_words(_PURPOSE.sub(" ", after)))
        and not any(factor_of(word) is not None or word in NUMBER_WORDS for word in words)
        and not _NOT_FINAL.search(_THERE_ARE.sub(" ", beginning))
    )


_WHOLE_NUMBER = re.compile(rf"(?<![\w.,:]){_NUMBER}(?!\d|[.,:]\d)")


def _of_number(sentence: str, doubt: str) -> FoundAnswer | None:
    """The plain number in which a sentence ends: after its last equals sign, or the only one of the sentence."""
    plain = without_formulas(sentence)
    if equation := _EQUALS_NUMBER.search(plain):  # Then he has 3 * 4 = 12 apples
        last_clause = _CLAUSE_END.split(plain[: equation.start()])[-1]
        sure = not _NOT_FINAL.search(lowered(last_clause)) and len(words_of(equation["after"])) <= 8
        sure = sure or _is_closing(plain[: equation.start()], equation["after"])
        return FoundAnswer(equation["value"].strip(), doubt=doubt or ("" if sure else NO_STATEMENT))
    numbers = list(_WHOLE_NUMBER.finditer(plain))
    if not numbers or not is_complete(plain[numbers[-1].end() :]):
        return None
    before, after = plain[: numbers[-1].start()], plain[numbers[-1].end() :]
    words = lowered(before)
    if not (_PREDICATE if len(numbers) == 1 or _CONCLUDING.search(words) else _IS).search(words):
        return None
    sure = (
        bool(_IS.search(words))
        and "are equal to" not in before
        and not _NOT_FINAL.search(_CLAUSE_END.split(words)[-1])
        and len(words_of(after)) <= 3
    )
    sure = sure or (len(numbers) == 1 and _is_closing(before, after))
    return FoundAnswer(numbers[-1][0].strip() + unit_after(after), doubt=doubt or ("" if sure else NO_STATEMENT))
