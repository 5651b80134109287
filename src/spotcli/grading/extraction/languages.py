"""Announcements, units and conjunctions in languages other than English."""

from __future__ import annotations

import re

ABROAD = (
    r"(?:(?:答案|答え|解答|正解|结果|結果)(?:应该|应|就|便|也)?\s*(?:是|为|為|は|等于|選|选|[:=])|(?:故选|应选|选择)\s*[:]?(?=\s*[A-J])"
    r"|(?:정답|답)\s*(?:은|:)"
    r"|\bответ(?:\s*[:\u2013\u2014-]|\s+равен)"
    r"|\b(?:r[ée]ponse|solution|r[ée]sultat)(?:\s+(?:finale|correcte|exacte|cherchée))?\s*(?:est\b|:)(?:\s+(?:donc|alors)\b)?"
    r"|\b(?:antwort|lösung|ergebnis)\s*(?:ist\b|lautet\b|beträgt\b|:)(?:\s+(?:also|daher|somit)\b)?"
    r"|\b(?:respuesta|soluci[óo]n|resultado)(?:\s+(?:final|correcta))?\s*(?:es\b|:)(?:\s+(?:entonces|por tanto)\b)?"
    r"|\bresposta(?:\s+(?:final|correta|certa))?\s*(?:é(?!\w)|:)"
    r"|\b(?:risposta|soluzione|risultato)(?:\s+(?:finale|corretta|esatta))?\s*(?:è(?!\w)|:)"
    r"|\bantwoord\s*(?:is\b|:)|\bodpowied[źz](?:\s+to\b|\s*:)|\bcevap\s*:|đáp án\s*(?:là\b|:))"
)
"""A pattern of the words before the answer, in Chinese, Japanese, Korean, Russian, French, German, Spanish, Portuguese,
Italian, Dutch, Polish, Turkish and Vietnamese."""

NOUNS = (
    "antwort", "ergebnis", "respuesta", "solucion", "resultado", "resposta", "risposta", "soluzione", "risultato",
    "antwoord", "odpowiedz", "cevap", "reponse", "solution est", "resultat",
)  # fmt: skip
"""Words before the answer that are written without accents."""
_CHINESE = re.compile("[\u4e00-\u9fff]")
_UNITS = {
    "厘米": "cm", "毫米": "mm", "千米": "km", "公里": "km", "米": "m", "千克": "kg", "公斤": "kg", "克": "g",
    "小时": "hours", "分钟": "minutes", "秒": "seconds", "天": "days", "年": "years", "元": "yuan", "度": "degrees",
    "毫升": "mL", "升": "L",
}  # fmt: skip
_UNIT_NAMES = "|".join(_UNITS)
_POWERS = {"平方": "square ", "立方": "cubic "}
_COUNTERS = "个人只本张名位种次件条辆棵块支岁页道份组"
_AFTER_NUMBER = re.compile(rf"(?<=[\d$)}}])\s*(?:(平方|立方)?({_UNIT_NAMES})|[{_COUNTERS}])(?![\u4e00-\u9fff])")
_BETWEEN = re.compile(r"(?<=[\d$)}\s])\s*([或和与及])\s*(?=[$\d\\(a-z-])")


def in_english(text: str) -> str:
    """The text with the Chinese units and conjunctions next to its values in English."""
    if not _CHINESE.search(text):
        return text
    text = _BETWEEN.sub(lambda word: " or " if word[1] == "或" else " and ", text)
    return _AFTER_NUMBER.sub(_unit, text)


def _unit(unit: re.Match[str]) -> str:
    return f" {_POWERS.get(unit[1], '')}{_UNITS[unit[2]]}" if unit[2] else ""
