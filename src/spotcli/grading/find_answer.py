r"""Finding the answer in a text: in a box, in an announcement, in the conclusion, or as the whole text.

Order of the search; the first match is the answer:

1. the last ``\boxed{...}`` or ``\fbox{...}`` with balanced braces, outside of thinking blocks, unless the text after it
   withdraws it or states another answer;
2. an ``<answer>`` tag, or an announcement near the end: ``the final answer is ...``, ``Answer: ...``, ``#### ...``;
3. the whole text, if it contains only an answer (``7,425,000``, ``$x=5$``);
4. the conclusion: the value in which the last sentence ends.

This module and ``extraction`` use only the standard library.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from spotcli.grading.extraction import FoundAnswer, NoAnswer
from spotcli.grading.extraction.announcements import announced_answer, final_announcement, split_value, tagged_answer
from spotcli.grading.extraction.boxes import boxed_answer
from spotcli.grading.extraction.conclusions import conclusion, whole_answer
from spotcli.grading.extraction.markup import without_markup
from spotcli.grading.extraction.sentences import COMMAND, FORMULA, WORD, has_value, lowered

__all__ = [
    "FoundAnswer",
    "NoAnswer",
    "find_answer",
    "find_reference",
    "is_thinking_open",
    "leading_choice",
    "strip_thinking",
]


def find_answer(response: str) -> FoundAnswer:
    """Find the answer in a model's response.

    Raises:
        NoAnswer: the response contains no answer, or an incomplete, empty or withdrawn box.
    """
    text = without_markup(strip_thinking(response))
    if "</s>" in text or "<|" in text or "<e" in text or "INST]" in text:
        text = _END_TOKEN.sub("", text)
    text = _without_continuation((_CALCULATION.sub("", text) if "<<" in text else text).rstrip())
    if boxed := boxed_answer(text):
        return _after_box(boxed[0], text[boxed[1] :])
    if tagged := tagged_answer(text):
        return _whole_or_announced(tagged) or FoundAnswer(tagged)
    if answer := _whole_or_announced(text) or conclusion(text):
        return answer
    raise NoAnswer("no answer found: expected \\boxed{...} or an announcement such as 'the answer is'")


def find_reference(reference: str) -> FoundAnswer:
    """Find the answer in a reference: its box, the line after ``####``, or the whole text.

    In contrast to a response, a reference without a box is used as a whole, whatever its length.

    Raises:
        NoAnswer: the reference contains an incomplete or empty box.
    """
    if boxed := boxed_answer(reference):
        return boxed[0]
    long = len(reference) > 60 or "\n" in reference.strip() or "####" in reference
    if (long or _ANNOUNCING.match(reference)) and (announced := announced_answer(reference)):
        return announced if announced.text else FoundAnswer(reference.strip())
    return FoundAnswer(reference.strip())


_ANNOUNCING = re.compile(r"\s*(?:so|thus|therefore|hence)?,?\s*(?:the )?(?:final )?answer\b", re.IGNORECASE)
_END_TOKEN = re.compile(r"(?:</s>|<\|[\w-]{1,30}\|>|<(?:eos|end_of_turn|end_of_sentence)>|\[/?INST\])\s*(?=$|<|\[)")
_CALCULATION = re.compile(r"<<[^<>\n]{0,200}>>")
"""Notes of a calculator within a solution: ``<<3*4=12>>``."""
_CONTINUATION = re.compile(
    r"\n(?=[ \t#*QPUHI])[ \t]*(?:#+[ \t]*)?(?:\*\*)?(?:Question|Problem|Q|User|Human|Instruction)\s*:"
)
_OTHER_TURN = re.compile(
    r"<\|(?:im_start|start_header_id)\|>\s*(?:user|system)\b|<\|user\|>|<start_of_turn>user\b", re.IGNORECASE
)
_USER_LINE = re.compile(r"\n(?:user|human):?[ \t]*\n", re.IGNORECASE)
_STATED = re.compile(r"\\boxed|####|\banswer(?: is|:)")


def _without_continuation(text: str) -> str:
    """The text without another question that a model invents after its answer."""
    turns = [_OTHER_TURN.search(text) if "<" in text else None, _USER_LINE.search(text)]
    if starts := [turn.start() for turn in turns if turn]:
        text = text[: min(starts)].rstrip()
    if not _CONTINUATION.search(text):
        return text
    stated = _STATED.search(lowered(text))
    continuation = _CONTINUATION.search(text, stated.end()) if stated else None
    return text[: continuation.start()].rstrip() if continuation else text


# --- the text after a box ---

_WITHDRAWN = re.compile(
    r"\b(?:wait|hmm|oops|correction|sorry|hold on|i made (?:a|an) \w+|(?<!common )mistake"
    r"|(?:wrong|incorrect)(?! answer)|should (?:be|have)|on second thought|not (?:right|correct)|let me re)\b"
)
_CORRECTED = re.compile(
    r"\b(?:however|but|actually)\b[^.\n]{0,120}?\b(?:must|have to|need to|should|forgot|missed|overlooked|neglected"
    r"|count(?:s|ed)?\b[^.\n]{0,40}\btwice"
    r"|(?:correct|right|actual|real|true) (?:answer|value|result)|double[- ]count\w*)\b[^.\n\d]{0,120}\d"
)
"""A correction without a word of withdrawal: "However, we must divide by 2, which gives 3."."""
_CONFIRMED = re.compile(
    r"\b(?:is (?:indeed )?(?:correct|right|valid)|(?:indeed|also) (?:correct|holds)|confirm\w*|verified|checks out"
    r"|matches|as (?:expected|required|desired)|no (?:mistake|error)s?|yes|looks good|consistent)\b"
)
_HYPOTHETICAL = re.compile(
    r"\b(?:common|easy to|tempting|typical|students|people|one (?:might|may|could)|might think"
    r"|would (?:give|yield|lead))\b"
)
"""A mistake that somebody else makes: "It is easy to make the mistake of ..., which would give 28."."""
_ENDS_CONFIRMED = re.compile(
    r"\b(?:answer|solution|result|value|it)\s+(?:is|was)\s+(?:indeed\s+)?(?:correct|right|valid|verified)\W*$"
)
"""The end of a check of the boxed answer: "..., so our answer is correct."."""
_SO_VALUE = re.compile(r"\b(?:so|hence|thus|therefore|giving)\b[^.\n]*$")


def _after_box(answer: FoundAnswer, tail: str) -> FoundAnswer:
    """The boxed answer in the light of the text after it.

    Raises:
        NoAnswer: the text withdraws the answer.
    """
    if len(tail.strip(" \t\n$.*)]}\\")) < 2:
        return answer
    words = lowered(tail)
    withdrawn = bool(_WITHDRAWN.search(words) or _CORRECTED.search(words)) and not _CONFIRMED.search(words)
    tagged = tagged_answer(tail)
    later = _whole_or_announced(tagged) if tagged else None
    if _STATED.search(words) or "final result" in tail or _ANSWER.search(words):
        confirmed = _ENDS_CONFIRMED.search(words) and not _WITHDRAWN.search(words)
        later = later or (final_announcement(tail) if confirmed else announced_answer(tail))
    if later and later.text and has_value(later.text) and _key(later.text) != _key(answer.text):
        if withdrawn or _FINAL.search(words):
            return later
        return FoundAnswer(later.text, doubt=later.doubt or "the box and a later announcement differ")
    if later and later.text:
        return answer
    if withdrawn and _HYPOTHETICAL.search(words):
        return FoundAnswer(answer.text, doubt="the text after the box names a mistake", others=answer.others)
    if withdrawn:
        if corrected := conclusion(tail, "the boxed answer is withdrawn"):
            return corrected
        raise NoAnswer("the boxed answer is withdrawn")
    ending = _SO_VALUE.search(words.strip(" .\n"))
    if ending and has_value(ending[0]) and _key(answer.text) not in _key(tail):
        return FoundAnswer(answer.text, doubt="the text after the box concludes another value", others=answer.others)
    return answer


_ANSWER = re.compile(r"\banswer|\bcorrect (?:one|value)")
_FINAL = re.compile(r"\bfinal answer\b(?:\s+is)?\s*:?")


def _key(text: str) -> str:
    return _LAYOUT.sub("", text.replace("dfrac", "frac"))


_LAYOUT = re.compile(r"\\[()\[\],;! ]|\\left|\\right|\\text|[\s${}*.,]")


def _whole_or_announced(text: str) -> FoundAnswer | None:
    if answer := announced_answer(text):
        if answer.text:
            return answer
        raise NoAnswer(answer.doubt)
    whole = _whole(text)
    if whole and not FORMULA.search(whole) and "=" not in whole and re.match(r"[A-Za-z\u2248~]|[^=]*\d\s\(", whole):
        value, tail = split_value(whole)  # about 42, 42 (forty-two)
        whole = value if value and has_value(value) and not re.search(r"\d|\bor\b", tail) else whole
    return whole_answer(whole) if whole else None


# --- thinking ---

_TAGS = "think|thinking|thought|thoughts|reasoning|scratchpad|analysis"
_OPEN_OR_CLOSE = re.compile(rf"</?(?:{_TAGS})>", re.IGNORECASE)
_OPEN_OR_CLOSE_OR_TRIANGLES = re.compile(rf"</?(?:{_TAGS})>|◁/?think▷", re.IGNORECASE)


def _thinking_marks(text: str) -> Iterator[re.Match[str]]:
    return (_OPEN_OR_CLOSE_OR_TRIANGLES if "◁" in text else _OPEN_OR_CLOSE).finditer(text)


def is_thinking_open(text: str) -> bool:
    """Whether a text ends within a thinking block."""
    depth = 0
    for mark in _thinking_marks(text):
        depth = max(0, depth - 1) if "/" in mark[0] else depth + 1
    return depth > 0


def strip_thinking(text: str) -> str:
    """Remove thinking blocks.

    The text after an opening tag that is not closed is removed, and so is the text before a closing tag without an
    opening one.
    """
    if "<" not in text and "◁" not in text:
        return text
    kept: list[str] = []
    position, depth = 0, 0
    for mark in _thinking_marks(text):
        if "/" in mark[0]:
            if depth == 0:  # the chat template may have opened the block in the prompt
                kept.clear()
            depth = max(0, depth - 1)
        else:
            if depth == 0:
                kept.append(text[position : mark.start()])
            depth += 1
        position = mark.end()
    if depth == 0:
        kept.append(text[position:])
    return "".join(kept)


# --- the whole text ---

_IN_FORMULAS = {
    "and", "or", "sin", "cos", "tan", "log", "ln", "exp", "sqrt", "pi", "max", "min", "inf", "percent", "pct",
}  # fmt: skip
"""Words that do not turn a formula into prose."""


def _whole(text: str) -> str | None:
    """The text itself, if it contains only an answer; else None.

    Such a text is a formula, a number with its unit, up to three words, or one short sentence around a single formula.
    """
    text = text.strip(" \t\n*_`\"'")
    text = text[opening.end() :] if (opening := _OPENING.match(text)) else text
    if not text or len(text) > 1000 or "\\begin{al" in text or _is_prose(text):
        return None
    words = [word for word in WORD.findall(COMMAND.sub(" ", text)) if word.lower() not in _IN_FORMULAS]
    formulas = list(FORMULA.finditer(text))
    if len(formulas) == 1 and len(words) <= _MAX_WORDS and len(text) - len(formulas[0][0]) <= 60 and ". " not in text:
        outside = text.replace(formulas[0][0], " ")
        if _NO_NAME.search(outside):
            return None
        named = _LONG_WORD.search(text[: formulas[0].start()]) or _COPULA.match(text, formulas[0].end())
        return formulas[0][0] if named or _SENTENCE_WORD.search(outside) else text
    if not formulas and _STATEMENT.search(text):
        return None
    if text.count("\n") > (12 if text[0] in "$\\" else 0) or _COLON.search(text):
        return None
    if len(formulas) > 1 and words:
        return None
    number_first = _NUMBER_FIRST.match(text)
    if len(words) <= 3 and (number_first or len(words) == len(text.split())):
        return text
    return text if len(words) <= 1 or ("=" in text and len(words) <= 2) else None


def _is_prose(text: str) -> bool:
    """Whether a text has more words than an answer, found without reading all of it."""
    count = 0
    for mark in _WORD_OR_COMMAND.finditer(text):
        count += bool(mark[1]) and mark[1].lower() not in _IN_FORMULAS
        if count > _MAX_WORDS:
            return True
    return False


_MAX_WORDS = 8
"""Words of an answer."""
_WORD_OR_COMMAND = re.compile(rf"{COMMAND.pattern}|({WORD.pattern})")
_LONG_WORD = re.compile(r"[^\W\d_]{3,}")
_COPULA = re.compile(r"\s*(?:is|are)\b")
_NO_NAME = re.compile(r"\d|\bnot\b|^\s*(?:when|if|at|since|for)\b", re.IGNORECASE)
"""Text around a formula that is no name of it."""
_STATEMENT = re.compile(r"\d[^\n]{0,80}?\b(?:is|are|equals|gives)\s[^\n]{0,80}?\d")
_COLON = re.compile(r"\w\s*:\s")
_NUMBER_FIRST = re.compile(r"[-+$€£\\(\[.]*\d")
_SENTENCE_WORD = re.compile(r"\b(?:we|it|this|as|which|that|is|are|done|required|desired|needed)\b", re.IGNORECASE)
"""Words around a formula that are no unit of it."""
_OPENING = re.compile(r"^(?:(?:so|thus|therefore|hence|finally|ok|okay|then|and)\b,?\s+(?=\S))+", re.IGNORECASE)


_CHOICE_IS_CORRECT = re.compile(
    r"(?:\b(?:option|choice|answer)\s*|(?:^|[.,:]\s+|\bthink\s+)(?=\(?[B-J]|A\)? is\b))"
    r"[(\[]?([A-J])[)\]]?\s+(?:is|was|must be|would be)\s+(?:the\s+)?"
    r"(?:correct|right|best|true)\b",
    re.IGNORECASE,
)
_CHOSEN = re.compile(
    r"\b(?:I(?:['\u2019]d| would|['\u2019]ll| will)?\s+(?:choose|pick|select|go with)|[Ii]t(?:['\u2019]s| is))"
    r"\s+(?:(?:option|choice|answer)\s+)?"
    r"[*(]{0,3}([A-J])[*)]{0,3}(?=[\s.,!]|$)(?! or\b| and\b)"
)
_CHOICE = re.compile(r"\W{0,3}\(?([A-J])(?:[).:,。]|[^\x00-\x7f]|\s*$)")


def leading_choice(response: str) -> str | None:
    """The letter in ``D. it can't be A`` or ``Option D is correct``, for references that are a letter."""
    text = strip_thinking(response).replace("**", "").strip()
    for pattern in (_CHOICE_IS_CORRECT, _CHOSEN):
        if named := pattern.findall(text[-1000:]):
            return str(named[-1]).upper()
    choice = _CHOICE.match(text)
    return choice[1] if choice else None
