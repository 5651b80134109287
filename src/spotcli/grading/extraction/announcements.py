r"""Answers that a text announces: ``The final answer is 42, not 43.``, ``**Answer:** (C)``, ``#### 42``, tags.

An announced value is not always the final one: "The answer is x = 4, but the question asks for 2x, so 2x = 8". What
follows an announcement therefore decides whether it counts.
"""

from __future__ import annotations

import re
from dataclasses import replace

from spotcli.grading.extraction import FoundAnswer
from spotcli.grading.extraction.conclusions import MAX_UNIT_WORDS, conclusion, right_side, unit_after
from spotcli.grading.extraction.languages import ABROAD, NOUNS
from spotcli.grading.extraction.sentences import (
    FORMULA,
    first_sentence,
    has_value,
    is_wrong,
    lowered,
    masked,
    without_formulas,
    words_of,
)
from spotcli.grading.extraction.statements import statement

_NEAR_END = 400
"""Characters at the end of a text that are searched. An earlier announcement may have been withdrawn since ("the answer
is 5. Wait, ...")."""
_IS = r"(?:is|are|equals?|becomes|(?:should|must|will|has to) be|comes (?:out )?to(?: be)?|(?:turns|works) out to be)"
_ANSWER_IS = re.compile(
    r"(?:(?<![^\W_])"
    r"(?P<noun>answers?|solutions?|final result|(?:correct|right|best) (?:choice|option|one|value|answer))\b"
    r"(?:\s*\([^()\n]{0,40}\))?(?:\s+(?:choice|option|set))?[*_`\"']*"
    rf"(?:\s*(?:[:\uff1a=]|(?=\s*(?:\$|\\[(\[]))|\b{_IS}\b\s*:?|->|=>|\u2192)"
    rf"|\s+(?P<of>(?:to|for|of)\b[^.:\n]{{0,100}}?)(?:\b{_IS}\b|:)"
    r"|(?<=\bthe answer)\s+(?=-?\d)|\s+of(?=\s*(?:[$\d]|\\[(\[]))"
    r"|,? (?:then|therefore|thus|of course),? is\b))"
    r"(?:\s+(?:clearly|definitely|option|choice)\b)?[*_`\"]*"
)
"""An announcement, in lower case."""
_NOUNS = ("answer", "solution", "final result", "correct ", "right ", "best ")
"""Text in lower case without one of these contains no announcement in English."""
_ANSWER_ABROAD = re.compile(rf"(?P<noun>)(?P<of>(?!))?{ABROAD}[*_`\"]*", re.IGNORECASE)
_OTHER_ANSWER = re.compile(
    r"\b(?:wrong|incorrect|other|another|common|false|possible|first|second|third|tempting|intermediate|partial|not"
    r"|(?:check|verify|checking|verifying|confirm|assume|suppose|assuming|supposing|if|whether)"
    r"\s+(?:that\s+)?(?:our|the|this|that the|that our))\s+$"
)
_HEARSAY = re.compile(
    r"\b(?:mistake|might|may|could|tempt\w*|wrongly|incorrectly|book|key|people|students|expected|given|supposed)\b"
)
"""Words before an announcement that somebody else, or nobody, makes."""
_STOP = re.compile(r"[.!?\n]")
_DENIAL = re.compile(r"not\s+(?=[$\d\\(-]|[A-J]\b)")
_NOT_BUT = re.compile(r"\s*not\s+[^\s.?!]{1,40},?\s+but\s+(?:rather\s+)?(?=[*$\d\\(-])")
"""The start of an announcement of another value: "not 16 but 18"."""
_PART = re.compile(r"\b(?:first|second|third|next|previous|part|sub)\b|\([a-h1-9]\)")
_MARKED_LINE = re.compile(
    r"^\s*(?:\*\*|__|>\s*)*(?:A|Ans|Answer|Final Answer|Solution|(?:Final )?Result)(?:\*\*|__)?\s*"
    r"(?:[:\uff1a]|(?<=Ans)\.)(?:\*\*|__)?\s*(.+)$",
    re.IGNORECASE,
)
_HASHES = re.compile(r"(?:^|\s)####[ \t]*(\S.*)$")
_HEADING = re.compile(r"(?:^|\n)[#*_ \t]*(?:final |the )?answer[*_ \t]*:?[*_ \t]*\n\s*(\S[^\n]*)$", re.IGNORECASE)
_HEADED_LIST = re.compile(
    r"(?:^|\n)[#*_ \t]*(?:(?:final|the) )?(?:answers?|solutions?|results?)[*_ \t]*:?[*_ \t]*\n\s*"
    r"((?:[ \t]*(?:[-*\u2022]|\d{1,2}[.)]|\([a-h]\))[ \t]+[^\n]{1,80}\n?\s*){2,8})$",
    re.IGNORECASE,
)
_BULLET = re.compile(r"^[ \t]*(?:[-*\u2022]|\d{1,2}[.)]|\([a-h]\))[ \t]+", re.MULTILINE)
_LABEL = re.compile(r"^[^:=\d$]{1,40}:[*_ ]*(?=\S)")
_CHOICE_AND_TEXT = re.compile(
    r"(?:(?:[Oo]ption|[Cc]hoice)\s+\(?(?=[a-j]\))|(?:[Oo]ption|[Cc]hoice)\s+)?\(?([A-J]|(?<=[Oo]ption \()[a-j])"
    r"(?:\)\s*:|[.)])\s+([^\n.]{1,60})(?:\.?\s*\**\s*$|(?=\*\*))"
)
"""The text after an announcement, if it is a choice letter with its text."""
_TAG = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.IGNORECASE | re.DOTALL)
_FILLERS = re.compile(
    r"^(?:[\s,:*_`\"\u2248~]|\b(?:of course|therefore|thus|hence|exactly|simply|just|indeed|clearly|precisely|equal to"
    r"|given by|then|so|in fact|obviously|now|approximately|about|roughly|again|thereby|finally|actually|still|namely"
    r"|the (?:set|interval|point|(?:ordered )?pair|vector|matrix|expression|equation|function|fraction|polynomial)"
    r"(?=\s*[$\\({\[])"
    r"|(?:option|choice)(?=[\s*]*\(?[A-Ja-j]\b))\b,?)+",
    re.IGNORECASE,
)
_VALUE_END = re.compile(
    r",?\s+\(?(?:since|because|as|which|where|so|but|when|while|whereas|hence|thus|therefore|i\.e\.?|not|if|for|with"
    r"|after|given|rounded|namely|that|meaning|making|leaving|unless)\b|(?<!\s):\s|;\s|\s[-\u2013\u2014]+\s(?!(?:sin|cos|tan|cot|sec|ln|log|exp|sqrt|pi|abs|arc[a-z]+)\b)(?=[A-Za-z]{2}|a\s)"
    r"|(?<![-=+/^])(?<![\s\w]\*)\s\((?!\s*(?:mod|base)\b)(?=[^)]*(?:[a-z]{3,}|[\u3040-\u9fff]))|(?<=[A-Za-z$%])\s\((?=\s*\\?[$\d*])|(?<=\d)\s\((?=\s*\d[\d.,/]*\s*%?\s*\))|\s\((?=\s*(?:or\b|about\b|i\.e|=|~|\u2248|\\approx))"
    r"|,?\s+or\s+(?=(?:half|equivalently|approximately|about|roughly|simply)\b)|,?\s+and\s+(?:the|we|it|so|this|that|their|its|he|she|they)\b"
    r"|,\s+(?!(?:and|or)\b)(?=[a-z]{2}|[^\W\d_a-zA-Z])|(?<=[\d%*)])\s+of\s+(?:the|a|an|all|his|her|its|their)\b"
)
_OPERATION = re.compile(
    r"\bof\s+[\d*]|\b(?:times|plus|minus|divided|multiplied|twice|half|thrice|double|more than|less than|we|the one"
    r"|first|sum|product|difference|quotient|how|what|obtained|found|computed|calculated)\b",
    re.IGNORECASE,
)
_VALUE = re.compile(r"\*{4,}|-?(?:\\?[$\u20ac\u00a3]\s*)?\d[\d.,/]*(?<![.,/])%?")
_OPINION = re.compile(r"\W*(?:yes|no|not|true|false|none|neither|never|if|it depends)\b", re.IGNORECASE)
_VERBS = {
    "by", "can", "has", "have", "had", "gets", "got", "makes", "made", "takes", "took", "needs", "needed", "left",
    "pays", "paid", "costs", "earns", "earned", "spends", "spent", "saves", "saved", "weighs", "uses", "used",
}  # fmt: skip
"""Words before a value with which it is a sentence rather than a value with its name."""
_CLAUSE = re.compile(r"(?:they|he|she|it|we|you|there|the \w+)\s+\w+", re.IGNORECASE)
"""The start of a sentence, which a value is not."""
_IS_VALUE = re.compile(r"[^\W\d_].*\b(?:is|are|equals)\s+(?:equal to\s+)?(?=[$\\\d-])(.+)$", re.DOTALL)
_REASON = re.compile(
    r"\W*(?:since|because|as|explanation|check|checking|verification|note|indeed|where|not|reason|proof|here|with|for"
    r"|given|i\.e|and not|rather than|instead of"
    r"|rounded|this|assuming|which|that|after|using|to see|recall"
    r"|let(?:'s| me| us) (?:double[- ]?)?(?:check|verify|confirm))\b",
    re.IGNORECASE,
)
"""The start of a text after an answer that gives a reason for it rather than another result."""
_BECAUSE = re.compile(r"\W*(?:since|because)\b", re.IGNORECASE)
_PREDICATE = re.compile(r"(?:the|this|it|there|these)\b[^,]*\b(?:is|are|has|have)\b", re.IGNORECASE)
_CONSEQUENCE = re.compile(
    r"\b(?:now|then|so|hence|thus|therefore|finally|need|question|asks?|asked|next)\b", re.IGNORECASE
)
_NOTE = re.compile(r"\W*(?:note|explanation|reason|proof|recall)\b", re.IGNORECASE)
_LEADS_ON = re.compile(
    r"\b(?:but|however|now|actually|correction|wait|need|want|asks|asked|next|finally|half|twice|double|final|answer"
    r"|correct)\b",
    re.IGNORECASE,
)
"""Words in a note after an answer that may lead to another one."""
_CHECK = re.compile(
    r"\W*(?:(?:sanity |quick |double[- ])?check|checking|verification|proof|(?:to|(?:we|you) can) (?:also )?"
    r"(?:(?:double[- ])?check|verify|confirm)|let(?:'s| me| us) (?:double[- ]?)?(?:check|verify))\b",
    re.IGNORECASE,
)
_ASIDE = re.compile(
    r"\b(?:but )?I(?:'m| am) not (?:100 ?% )?(?:sure|certain)\b"
    r"|\([^()]{0,80}\b(?:reject(?:ed)?|discard(?:ed)?|extraneous|invalid|not valid|ignored?|impossible)\b[^()]{0,80}\)",
    re.IGNORECASE,
)
"""A remark that holds no answer, such as one about another value: "(the other root, x = -5, is rejected)"."""
_WITHDRAWAL = re.compile(r"\b(?:wait|but|however|actually|wrong|incorrect|mistake|error|oops|instead)\b", re.IGNORECASE)
_TAKEN_BACK = re.compile(
    r"\W*(?:(?:no|wait|hmm+|oops|actually|sorry),?\s+)*(?:no\b|(?:that|this|it|which)(?:['\u2019]s| is| was) "
    r"(?:not (?:right|correct)|wrong|incorrect))[^\d]*$",
    re.IGNORECASE,
)
"""A text after an answer that withdraws it without another one."""
_GOING_ON = re.compile(
    r"\b(?:we (?:get|have|obtain|find)|but|however|now|then|so|hence|thus|therefore|finally|half|twice|double|sum"
    r"|product|total|question|asks?|asked|need|want|next|wait|perimeter|remaining|left|per|each|average|difference"
    r"|for part|their|actually|correction)\b",
    re.IGNORECASE,
)


def tagged_answer(text: str) -> str | None:
    """The content of the last ``<answer>`` tag; it may be cut off by a stop sequence at the closing tag."""
    tags = list(_TAG.finditer(text)) if "<answer>" in text.lower() else []
    return tags[-1][1].strip() or None if tags else None


def announced_answer(text: str) -> FoundAnswer | None:
    """The answer after the last announcement near the end, or None.

    Where all announcements name other answers, it is the conclusion of the text.
    """
    tail = text.rstrip()[-_NEAR_END:]
    if marked := _marked_answer(tail):
        return marked
    announcements = _announcements(tail)
    answer = _last_final(tail, announcements)
    if answer is None and announcements:
        return conclusion(text, "an announced answer is not the final one")
    return answer


def final_announcement(text: str) -> FoundAnswer | None:
    """The answer after the last announcement near the end that names the final answer, or None."""
    tail = text.rstrip()[-_NEAR_END:]
    return _marked_answer(tail) or _last_final(tail, _announcements(tail))


def _marked_answer(tail: str) -> FoundAnswer | None:
    """The answer in a last line such as ``#### 42`` or ``A: 42``, or below a heading."""
    last_line = tail.rsplit("\n", 1)[-1]
    hashes = _HASHES.search(last_line) if "####" in last_line else None
    if marked := hashes or _MARKED_LINE.match(last_line):
        return _announced(marked[1])
    if _BULLET.match(last_line) and (headed := _HEADED_LIST.search(tail)):
        items = [item.strip(" \n*_.;,") for item in _BULLET.split(headed[1]) if item.strip()]
        return FoundAnswer(", ".join(_LABEL.sub("", item) for item in items), doubt="a list of several answers")
    heading = _HEADING.search(tail) if "\n" in tail and "answer" in lowered(tail) else None
    return _announced(heading[1]) if heading else None


def _last_final(tail: str, announcements: list[re.Match[str]]) -> FoundAnswer | None:
    """The answer after the last of several announcements that names the final answer, or None."""
    for announcement in reversed(announcements):
        if contrast := _NOT_BUT.match(tail, announcement.end()):
            return _announced(tail[contrast.end() :])
        if not _is_another_answer(tail, announcement) and not _is_description(tail[announcement.end() :]):
            return _announced(tail[announcement.end() :])
    return None


def _announcements(text: str) -> list[re.Match[str]]:
    """The announcements of a text in their order."""
    words = lowered(text)
    found = list(_ANSWER_IS.finditer(words)) if any(noun in words for noun in _NOUNS) else []
    if not text.isascii() or any(noun in words for noun in NOUNS):
        found = sorted([*found, *_ANSWER_ABROAD.finditer(text)], key=lambda announcement: announcement.end())
    return found


def _is_another_answer(text: str, announcement: re.Match[str]) -> bool:
    """Whether an announcement names no final answer: a wrong one, one of a part, or a question."""
    before = lowered(text[: announcement.start()])
    sentence, rest = first_sentence(text[announcement.end() :])
    end = len(text) - len(rest)
    return bool(
        (before[-1:].isspace() and _OTHER_ANSWER.search(before))
        or _HEARSAY.search(_STOP.split(before)[-1])
        or (announcement["of"] and _PART.search(announcement["of"]))
        or text[end - 1 : end] == "?"
        or sentence.lower().startswith(("correct", "right", "wrong"))
        or _DENIAL.match(sentence)
    )


def _is_description(text: str) -> bool:
    """Whether the text after an announcement describes the answer without stating it."""
    sentence = first_sentence(text)[0]
    return not has_value(sentence) and len(words_of(sentence)) > _MAX_WORDS and has_value(text)


_MAX_WORDS = 6
"""Words of an answer that is neither a number nor a formula."""


def _announced(text: str) -> FoundAnswer:
    """The answer in the text after an announcement."""
    text = text.replace('\\"', '"').lstrip(" \t\n*:")
    sentence, rest = first_sentence(text)
    value, tail = split_value(sentence)
    following = _ASIDE.sub(" ", f"{tail.strip(' ,;:')} {rest}").strip()
    if choice := _CHOICE_AND_TEXT.match(text):  # B. 12 meters
        return FoundAnswer(f"({choice[1].upper()}) {choice[2].strip(' *')}")
    if not value:
        return _announced_sentence(sentence, rest)
    if _TAKEN_BACK.match(following) or (not has_value(following) and is_wrong(lowered(following))):
        return FoundAnswer("", doubt="the announced answer is withdrawn")
    if text[len(sentence) :].startswith("!"):
        return FoundAnswer(value, doubt="an exclamation mark after the answer may be a factorial")
    if _RESTATED.match(following) and has_value(following) and not _GOING_ON.search(following):
        return _with_others(value, following)
    if (
        not has_value(following)
        or _repeats(value, following)
        or (_REASON.match(following) and not _GOING_ON.search(following))
        or (_BECAUSE.match(following) and not (_WITHDRAWAL.search(following) or _CONSEQUENCE.search(following)))
        or (_CHECK.match(following) and not _WITHDRAWAL.search(following))
    ):
        return FoundAnswer(value, result=right_side(value))
    if _GOING_ON.search(following) and not (_NOTE.match(following) and not _LEADS_ON.search(following)):
        doubt = "the announced answer is followed by another result"
        return conclusion(following, doubt) or FoundAnswer("", doubt=doubt)
    return _with_others(value, following)


_MAX_OTHERS = 6
_RESTATING = re.compile(r"\A[\s,(]*(?:(?:or|i\.e\.?|that is|which is|equivalently)\b[\s,.]*)?", re.IGNORECASE)
_RESTATED = re.compile(r"\(?(?:i\.e\.?|that is|equivalently|in other words)[\s,]", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d[\d.,/]*(?<![.,/])%?")


def _with_others(value: str, following: str) -> FoundAnswer:
    """An answer before other values, of which one may be meant: "The answer is 3/8 (or 0.375)."."""
    formulas = FORMULA.findall(following)
    others = [*formulas, *_NUMBER.findall(without_formulas(following))]
    if len(others) > _MAX_OTHERS or _WITHDRAWAL.search(following):
        return FoundAnswer(value, doubt="the announced answer is followed by other values")
    members = ", ".join([value, *others])  # the reference may be a list of all values
    remark = _FILLERS.sub("", _RESTATING.sub("", following, count=1)).strip(" .)")
    return FoundAnswer(value, result=right_side(value), others=(*others, remark, members))


def _announced_sentence(sentence: str, rest: str) -> FoundAnswer:
    """The answer in an announced sentence: its only value, as in "Answer: Maria spent $50 in total."."""
    doubt = "the announced answer is a sentence"
    if not has_value(rest) and not _OPINION.match(sentence) and (stated := statement(sentence, announced=True)):
        return stated
    if not has_value(f"{sentence} {rest}") and _PREDICATE.match(sentence) and len(words_of(sentence)) <= _MAX_WORDS + 2:
        return FoundAnswer(sentence)
    answer = conclusion(sentence, doubt)
    values = list(_VALUE.finditer(masked(sentence)))
    if len(values) != 1 or has_value(rest) or _OPERATION.search(sentence) or _OPINION.match(sentence):
        return answer or FoundAnswer(sentence, doubt=doubt)
    if answer:
        return replace(answer, doubt="")
    start, end = values[0].span()
    value = sentence[start:end] + unit_after(sentence[end:])
    return FoundAnswer(value, doubt="" if len(words_of(sentence[end:])) <= MAX_UNIT_WORDS else doubt)


def _repeats(value: str, following: str) -> bool:
    """Whether the text after a value ends in the same value, as in "The answer is 42. Check: 6*7 = 42."."""
    ending = conclusion(following, "repeated")
    return ending is not None and _key(value) in (_key(ending.text), _key(ending.result))


def _key(text: str) -> str:
    text = re.sub(r"(?<=[\d}$)])\s*(?:\\text\s*\{[^{}]*\}|[A-Za-z][A-Za-z ]{1,40})\s*$", "", text)  # a unit
    return re.sub(r"[\s$.,{}]|\\[()\[\]]", "", text)


def split_value(sentence: str) -> tuple[str, str]:
    """The value at the start of an announced sentence and the rest; an empty value where it starts with none."""
    text = _FILLERS.sub("", sentence).strip(' \t*_`"').rstrip(".")
    hidden = masked(text)
    end = _VALUE_END.search(hidden)
    head = text[: end.start()] if end else text
    tail = text[len(head) :]
    head = head.strip(' \t*_`",')
    head = head[:-1] if head.endswith("}") and head.count("{") < head.count("}") else head
    head = (
        head.strip("'\"")
        if head.startswith("'") or (head.count("'") == 1 and head.endswith("'") and "}" in text)
        else head
    )
    if _is_value(head) and not (_CLAUSE.match(head) and not has_value(head) and has_value(tail)):
        return head, tail
    if is_value := _IS_VALUE.match(text):  # Final Answer: The largest $n$ is 34.
        return split_value(is_value[1])
    return "", text


def _is_value(text: str) -> bool:
    words = words_of(text)
    if not text or _OPERATION.search(masked(text)):
        return False
    if not has_value(text):
        return len(words) <= 4
    start = re.search(r"\d|\\|[-+$\u20ac\u00a3(\[{]|=", text)
    leading = words_of(text[: start.start()]) if start else words
    states = {"is", "was", "are", "be", "equals"} & set(words) or _VERBS & set(leading)
    return len(leading) <= 2 and len(words) <= 8 and not states
