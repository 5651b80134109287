"""Announcements of an answer in languages other than English."""

from __future__ import annotations

ABROAD = (
    r"(?:(?:答案|答え|解答|正解|结果|結果)(?:应该|应|就|便|也)?\s*(?:是|为|為|は|等于|選|选|[:=])|(?:故选|应选|选择)\s*[:]?(?=\s*[A-J])"
    r"|(?:정답|답)\s*(?:은|:)"
    r"|\bответ(?:\s*[:\u2013\u2014-]|\s+равен)"
    r"|\br[ée]ponse(?:\s+(?:finale|correcte|exacte|cherchée))?\s*(?:est\b|:)(?:\s+(?:donc|alors)\b)?"
    r"|\b(?:antwort|lösung|ergebnis)\s*(?:ist\b|lautet\b|beträgt\b|:)(?:\s+(?:also|daher|somit)\b)?"
    r"|\b(?:respuesta|soluci[óo]n|resultado)(?:\s+(?:final|correcta))?\s*(?:es\b|:)(?:\s+(?:entonces|por tanto)\b)?"
    r"|\bresposta(?:\s+(?:final|correta|certa))?\s*(?:é(?!\w)|:)"
    r"|\b(?:risposta|soluzione|risultato)(?:\s+(?:finale|corretta|esatta))?\s*(?:è(?!\w)|:)"
    r"|\bantwoord\s*(?:is\b|:)|\bodpowied[źz](?:\s+to\b|\s*:)|\bcevap\s*:|đáp án\s*(?:là\b|:))"
)
"""A pattern of the words before the answer, in Chinese, Japanese, Korean, Russian, French, German, Spanish, Portuguese,
Italian, Dutch, Polish, Turkish and Vietnamese."""
