r"""Normalizing notation: ``\dfrac``, ``\left(``, ``×``, ``10{,}000`` and ``28 percent`` are rewritten to one form.

Only the notation changes, never the meaning; ``compare`` decides what is equal. This module uses only the standard
library.
"""

from __future__ import annotations

import re
import unicodedata

_CHARACTERS = {
    "−": "-", "–": "-", "‐": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∗": "*", "÷": "/",
    "∕": "/", "⁄": "/",
    "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ",
    "≈": r"\approx ",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "±": r"\pm ", "∓": r"\mp ", "°": r"^\circ ",
    "∅": r"\emptyset ",
    "²": "^{2}", "³": "^{3}", "⁴": "^{4}", "√": r"\sqrt ", "€": r"\EUR ", "£": r"\GBP ", "¥": r"\YEN ",
    "￥": r"\YEN ",
    "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
    "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ", "μ": r"\mu ", "ω": r"\omega ",
    "‰": r"\permille ",
    "。": ".", "\u200b": "", "\u2060": "", "\ufeff": "", "\u00ad": "",
}  # fmt: skip
_CHARACTER_TABLE = str.maketrans(_CHARACTERS)

_RULES = [
    (r"(?<=\d)(?:\{,\}|\\!,|,\s*\\!)\s*(?=\d{3}(?!\d))", ""),  # 10{,}000 and 11,\! 111
    (r"\{,\}|\\!,|,\\!\s*", ","),
    (r"\\(?:mathrm|mathbf|mathit|boldsymbol|bm|textbf)\s*(?=\{[^{}]*\\)", ""),  # bold around a formula
    (r"\\(?:mathbf|mathit|boldsymbol|bm|textbf)\s*(?=\{[^{}]*(?:[+=^_*]|\s-\s))", ""),
    (r"(?<=\d)(?:\\[,;: ]|~|\{(?:\s|\\,)\})(?=\d{3}(?!\d))", ""),  # 10\,000
    (r"(?<=,)\\[!,;: ](?=\s*\d{3})", ""),
    (r"\\+euro?\b(?:\{\})?", r"\\EUR "),
    (r"\\pounds?\b", r"\\GBP "),
    (r"\\[!,;:>]|~|\\q?quad(?![a-z])|\\ |\\(?:displaystyle|textstyle|limits|nolimits)(?![a-z])", " "),
    (r"\\phantom\{[^{}]*\}", " "),
    (r"\\(?:[bB]igg?[lrm]?|m?left|m?right|middle)(?![a-zA-Z])\s*\.?", ""),
    (r"\\(?:dfrac|tfrac|cfrac)(?![a-z])", r"\\frac"),
    (r"\\(?:mathrm|mathbf|mathit|mathsf|mathtt|mathbb|mathcal|boldsymbol|bm|textbf|textit|textrm|textsf|texttt"
     r"|textnormal|textup|mbox|hbox|operatorname\*?|emph|underline|rm|bf|it)(?![a-zA-Z])\s*(?=\{)",
     r"\\text"),
    (r"\{\s*\\(?:rm|bf|it)\s+([^{}]*)\}", r"\\text{\1}"),
    (r"\\(?:rm|bf|it)(?![a-zA-Z])", " "),
    (r"\\(?:leqslant|leq)(?![a-z])|<=|=<", r"\\le "),
    (r"\\(?:geqslant|geq)(?![a-z])|>=", r"\\ge "),
    (r"\\(?:neq|not\s*=)(?![a-z])|!=", r"\\ne "),
    (r"\\lt(?![a-z])", "<"),
    (r"\\gt(?![a-z])", ">"),
    (r"\\(?:varnothing|empty)(?![a-z])", r"\\emptyset "),
    (r"\^\s*(?:\{\s*\\(?:circ|degree)\s*\}|\\(?:circ|degree)(?![a-z]))", r"^\\circ "),
    (r"\\(?:text)?degree(?![a-z])", r"^\\circ "),
    (r"\\(?:lbrace|\{)", r"\\{"),
    (r"\\rbrace(?![a-z])", r"\\}"),
    (r"\\(?:lbrack)(?![a-z])", "["),
    (r"\\(?:rbrack)(?![a-z])", "]"),
    (r"\\(?:vert|lvert|rvert)(?![a-z])|\\mid(?![a-z])", "|"),
    (r"\\colon(?![a-z])", ":"),
    (r"\\(?:lor|vee)(?![a-z])", r"\\text{ or }"),
    (r"\\(?:land|wedge)(?![a-z])", r"\\text{ and }"),
    (r"\\text\{\s*(?:percent|percentage|per cent|pct)\s*\}|\\%", "%"),
    (r"(?<![a-z])(?:percentage|percent|per cent|pct)(?![a-z])", "%"),
    (r"\\pmod\s*(?:\{[^{}]*\}|\w)|\(\s*(?:\\text\{)?\s*mod(?:ulo)?\b[^()]*\)", ""),
    (r"\\text\{\s*infinity\s*\}", r"\\infty "),
    (r"\\\{\s*\\\}", r"\\emptyset "),
    (r"\\(?:overline|overrightarrow|overleftrightarrow|vec)\s*\{\s*([A-Z]{1,3})\s*\}", r"\1"),  # segments
    (r"\\text\{([^{}]*\d[^{}]*)\}", r" \1 "),
    (r"(?<=\d)\s*(?:\\text\{)?\s*[aA]\.?\s?[mM](?:\.|(?![a-zA-Z]))\s*\}?", r" \\text{am}"),
    (r"(?<=\d)\s*(?:\\text\{)?\s*[pP]\.?\s?[mM](?:\.|(?![a-zA-Z]))\s*\}?", r" \\text{pm}"),
    (r"(?<=\d)\s*[xX]\s*(?=10\s*\^)", r"\\times "),
    (r"\*\*", "^"),
    (r"(?<![A-Za-z])np\.(?=[a-z])", r"\\"),  # a reference written as numpy code
    (r"(?<![A-Za-z\\])(sqrt|pi|infinity|infty|cup)(?![A-Za-z])", r"\\\1 "),
    (r"(?<![A-Za-z\\])(?:oo|inf)(?![A-Za-z])", r"\\infty "),
    (r"\\infinity(?![a-z])", r"\\infty "),
    (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
    (r"\s+", " "),
]  # fmt: skip
"""Patterns and their replacements; the order matters."""
_REWRITES = [(re.compile(pattern), replacement) for pattern, replacement in _RULES]
_MATRIX = re.compile(r"\\begin\{(?:[pbvBV]?matrix|smallmatrix|array|cases|aligned)\}")
_FRAC_DIGITS = re.compile(r"\\frac\s*(\d)\s*(\d)")
_FRAC_HALF = re.compile(r"\\frac\s*(\d|[a-zA-Z])\s*(?=\{)")
_FRAC_TAIL = re.compile(r"(\\frac\s*\{[^{}]*\})\s*(\d|[a-zA-Z])")
_INNER_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{([^{}]*)\}")
_LONE_TEXT = re.compile(r"\\text\s*\{\s*\(?\s*([A-Za-z])\s*\)?\s*\}")


def tidy(text: str) -> str:
    """Rewrite a text to the notation that the other modules read.

    Raises:
        ValueError: the text contains a control character.
    """
    text = text.strip()
    for character in text:
        if (
            (character < " " and character not in "\n\t\r")
            or "\x7f" <= character <= "\x9f"
            or unicodedata.bidirectional(character) in _BIDIRECTIONAL
        ):
            raise ValueError(f"control character U+{ord(character):04X} in the answer")
    text = text.translate(_CHARACTER_TABLE)
    if not text.isascii():  # full-width digits and the like
        text = unicodedata.normalize("NFKC", text).translate(_CHARACTER_TABLE)
    text = _INNER_BOX.sub(r"{\1}", text) if "box" in text else text
    if _MATRIX.search(text):
        text = text.replace("\\\\", " \\cr ")
    else:
        text = re.sub(r"\\\\+(?=[a-zA-Z({\[%$])", r"\\", text)  # doubled by JSON or Python
        text = re.sub(r"\\\\", " ", text)
    text = _dollars(text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    if "\\frac" in text:
        text = _FRAC_DIGITS.sub(r"\\frac{\1}{\2}", text)
        text = _FRAC_HALF.sub(r"\\frac{\1}", text)
        text = _FRAC_TAIL.sub(r"\1{\2}", text)
    return text.strip().rstrip("\\.,;: ").strip()


_BIDIRECTIONAL = {"RLO", "LRO", "RLE", "LRE", "PDF", "RLI", "LRI", "FSI", "PDI"}
"""Classes of the characters that change the direction of text."""


def _dollars(text: str) -> str:
    r"""Remove math delimiters; a dollar sign that is a currency becomes the command ``\USD``."""
    for opening in ("\\(", "\\)", "\\[", "\\]"):
        if opening in text:
            text = text.replace(opening, " ")
    if "$" not in text:
        return text
    text = text.replace("\\$", "\\USD ")
    text = text.replace("$$", "$")
    if text.count("$") % 2:
        text = re.sub(r"\$(?=\s*[\d.])", r"\\USD ", text, count=1)
        text = re.sub(r"(?<=\d)\s*\$(?!.*\$)", r"\\USD ", text) if text.count("$") % 2 else text
    return text.replace("$", " ")


def canonical(text: str) -> str:
    """A key that is equal only for tidy texts with the same meaning.

    Spaces are removed, except between two words or two numbers.
    """
    text = _LONE_TEXT.sub(r"\1", text)
    text = re.sub(r"(?<![0-9A-Za-z.]) | (?![0-9A-Za-z.])", "", text)
    text = re.sub(r"(?<=[A-Za-z]) (?=\d)|(?<=\d) (?=[A-Za-z])", "", text) if "\\" not in text else text
    return re.sub(r"([_^])\{(\w)\}", r"\1\2", text)


_OPEN, _CLOSE = "([{", ")]}"


def split_top(text: str, separators: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """Split at separators outside of all brackets; return the pieces and the separators between them.

    Opening and closing brackets may differ in kind, because ``[0, 1)`` is an interval. After a closing bracket without
    an opening one, the text is not split.
    """
    pieces: list[str] = []
    between: list[str] = []
    depth, start, position = 0, 0, 0
    while position < len(text):
        character = text[position]
        if character in _OPEN:
            depth += 1
        elif character in _CLOSE:
            depth -= 1
        elif depth == 0 and (separator := separators.match(text, position)):
            pieces.append(text[start:position].strip())
            between.append(separator[0].strip())
            start = position = separator.end()
            continue
        if character == "\\" and position + 1 < len(text) and not text[position + 1].isalpha():
            depth += {"{": 1, "}": -1}.get(text[position + 1], 0)
            position += 1
        position += 1
    pieces.append(text[start:].strip())
    return pieces, between


def balanced(text: str) -> bool:
    """Whether the first and the last bracket of a text are a pair: true for ``(1, 2)``, false for ``(1)(2)``."""
    depth = 0
    for position, character in enumerate(text):
        if character in _OPEN:
            depth += 1
        elif character in _CLOSE:
            depth -= 1
            if depth == 0 and position < len(text) - 1:
                return False
    return depth == 0
