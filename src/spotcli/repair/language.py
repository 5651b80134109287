"""Whether a correction is in another language than the student's answer.

Scripts decide where they differ: a solution in Latin letters has no Chinese sentence. Within Latin letters the most
frequent words of seven languages decide, and only where they are clear. Formulas, commands and names say nothing about
the language, so single letters, LaTeX commands and short runs of foreign letters are not counted.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

FOREIGN = 2
"""Letters of a script that is new to the problem and the answer: a single one can be a symbol."""
PREVALENT = 0.3
"""Share of the letters from which on a script is that of the language."""
LETTERS = 10
"""Letters of a script that an answer in its language has at least."""
LOST = 0.25
"""A script whose share falls below this part of what it was is given up."""
FREQUENT = 6
"""Frequent words of a language that make it clear."""

DIFFERENT = 3
"""So many of them have to be different words."""

_COMMAND = re.compile(r"\\[A-Za-z]+|```.*?```", re.DOTALL)
_LATIN_WORD = re.compile(r"(?<![^\W_])[A-Za-zÀ-ɏ]{2,}(?![^\W_])")
_PROSE = re.compile(r"\b[A-Za-zÀ-ɏ]{2,}(?:,? [A-Za-zÀ-ɏ]{2,}){3,}")
"""Four Latin words in a row."""
_GREEK_WORD = re.compile(r"[Ͱ-Ͽ]{4,}")
_GREEK_ACCENT = re.compile(r"[Άά-ώ]")
_OTHER_LETTER = re.compile(r"[^\W\d_A-Za-zÀ-ɏͰ-Ͽ]")
_SYMBOL = re.compile(
    "MATHEMATICAL|DOUBLE-STRUCK|SCRIPT|BLACK-LETTER|PLANCK|KELVIN|ANGSTROM|OHM|MICRO|FEMININE|MASCULINE|MODIFIER"
    "|SUPERSCRIPT|SUBSCRIPT|ALEF|BET|GIMEL|DALET|EULER|FULLWIDTH|LATIN|GREEK|INFORMATION"
)
"""The first word of the names of letters that are symbols of mathematics, or Latin ones in another shape."""
_SCRIPTS = {"HIRAGANA": "KANA", "KATAKANA": "KANA", "HALFWIDTH": "KANA", "KATAKANA-HIRAGANA": "KANA"}

_FREQUENT = {
    "English": "the is of and we that this with which have has so then therefore are to from be by for not it",
    "German": "der das und ist wir nicht mit ein eine von zu dem daher somit sind auf für dass ergibt wird",
    "French": "le les est et nous donc une des du pour avec que qui dans sont cette alors ainsi sur",
    "Spanish": "el los las entonces por con una del que en se tenemos como esta luego es",
    "Italian": "il che di quindi con una del gli abbiamo sono della nel questo si allora dei è",
    "Portuguese": "os que então com uma em temos são não por isso ao logo para da é",
    "Dutch": "het een dus wij niet zijn dat voor op te hebben wordt deze van en",
}
"""Frequent words that are not also words of English."""
_WORDS = {language: frozenset(words.split()) for language, words in _FREQUENT.items()}


def changes_language(student: str, problem: str, text: str) -> bool:
    """Whether ``text`` leaves the language of the student's answer, in all of it or in a sentence."""
    student, problem, text = (_COMMAND.sub(" ", part) for part in (student, problem, text))
    own, new, asked = _letters(student), _letters(text), _letters(problem)
    for script, count in new.items():
        foreign = script not in own and count >= FOREIGN
        if foreign and script != "LATIN" and (script not in asked or count >= PREVALENT * new.total()):
            return True
    for script, count in own.items():
        share = count / own.total()
        if script == "LATIN" or count < LETTERS or share < PREVALENT:
            continue
        if new[script] / max(1, new.total()) < LOST * share:
            return True
        if not _PROSE.search(student) and any(run.group() not in problem for run in _PROSE.finditer(text)):
            return True
    return _changes_words(student, text)


def _letters(text: str) -> Counter[str]:
    """Letters by script; Latin and Greek ones in words only."""
    letters: Counter[str] = Counter()
    for character, count in Counter(_OTHER_LETTER.findall(text)).items():
        if script := _script(character):
            letters[script] += count
    words = {"LATIN": _LATIN_WORD.findall(text), "GREEK": filter(_GREEK_ACCENT.search, _GREEK_WORD.findall(text))}
    for script, found in words.items():
        if count := sum(map(len, found)):
            letters[script] = count
    return letters


@lru_cache(maxsize=4096)
def _script(character: str) -> str | None:
    first = unicodedata.name(character, "").partition(" ")[0] if unicodedata.category(character)[0] == "L" else ""
    return None if not first or _SYMBOL.fullmatch(first) else _SCRIPTS.get(first, first)


def _changes_words(student: str, text: str) -> bool:
    """Whether the frequent words of one language are replaced by those of another one."""
    before, after = _frequent(student), _frequent(text)
    if not before or not after:
        return False
    (language, count), (new_language, new_count) = before.most_common(1)[0], after.most_common(1)[0]
    return (
        language != new_language
        and min(count, new_count) >= FREQUENT
        and len(_WORDS[new_language].intersection(map(str.lower, _LATIN_WORD.findall(text)))) >= DIFFERENT
        and before[new_language] <= count / 3
        and after[language] <= new_count / 3
    )


def _frequent(text: str) -> Counter[str]:
    words = Counter(word.lower() for word in _LATIN_WORD.findall(text))
    return Counter({language: sum(words[word] for word in frequent) for language, frequent in _WORDS.items()})
