r"""Mathematical characters of Unicode as LaTeX: ``2⁵`` is ``2^{5}``, ``√16`` is ``\sqrt{16}``.

A character whose compatible form has another value (``⁵`` would become a plain 5) is rewritten before Unicode
normalization.
"""

from __future__ import annotations

import re
import unicodedata

_COMMANDS = {
    "×": "times", "·": "cdot", "⋅": "cdot", "∞": "infty", "≤": "le", "⩽": "le", "≥": "ge", "⩾": "ge", "≠": "ne",
    "≈": "approx", "≡": "equiv", "∪": "cup", "∩": "cap", "∈": "in", "∉": "notin", "∖": "setminus", "±": "pm",
    "∓": "mp", "∅": "emptyset", "→": "to", "⟶": "to", "⇒": "Rightarrow", "∧": "wedge", "∨": "vee", "¬": "neg",
    "∀": "forall", "∃": "exists", "∑": "sum", "∏": "prod", "∫": "int", "∂": "partial", "∠": "angle", "∡": "angle",
    "⌊": "lfloor", "⌋": "rfloor", "⌈": "lceil", "⌉": "rceil", "⟨": "langle", "⟩": "rangle", "〈": "langle",
    "〉": "rangle", "ℝ": "reals", "ℓ": "ell", "‰": "permille", "€": "EUR", "£": "GBP", "¥": "YEN", "￥": "YEN",
    "₹": "INR", "₩": "KRW",
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ϵ": "epsilon", "ζ": "zeta", "η": "eta",
    "θ": "theta", "ϑ": "theta", "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "µ": "mu", "ν": "nu", "ξ": "xi",
    "π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau", "φ": "phi", "ϕ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega",
    "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Φ": "Phi",
    "Ψ": "Psi", "Ω": "Omega",
}  # fmt: skip
_TEXTS = {
    "−": "-", "–": "-", "‐": "-", "∗": "*", "÷": "/", "∕": "/", "⁄": "/", "°": r"^\circ ", "′": "'", "″": "''",
    "。": ".", "、": ", ", "∎": "", "¢": r"\text{cent}", "\u200b": "", "\u2060": "", "\ufeff": "", "\u00ad": "",
    "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}",
}  # fmt: skip
_FRACTIONS = "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞⅐⅑⅒"


def _fraction(character: str) -> str:
    upper, lower = unicodedata.normalize("NFKC", character).split("⁄")
    return rf"\frac{{{upper}}}{{{lower}}}"


_TABLE = str.maketrans(
    {character: f"\\{command} " for character, command in _COMMANDS.items()}
    | _TEXTS
    | {character: _fraction(character) for character in _FRACTIONS}
)

_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ", "0123456789+-=()ni", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₒₓₖₗₘₙₚₛₜᵢⱼᵣᵤᵥ", "0123456789+-=()aeoxklmnpstijruv", strict=True))
_RAISED_RUN = re.compile(f"[{''.join(_RAISED)}]+")
_LOWERED_RUN = re.compile(f"[{''.join(_LOWERED)}]+")
_ROOT = re.compile(r"([√∛∜])\s*(?:(\d+(?:\.\d+)?|[A-Za-z])|(?=(\())|)")
_DEGREE = {"√": "", "∛": "[3]", "∜": "[4]"}


def without_unicode(text: str) -> str:
    """Rewrite the mathematical characters of a text as LaTeX, and full-width characters as plain ones."""
    if text.isascii():
        return text
    text = _RAISED_RUN.sub(lambda run: f"^{{{''.join(map(_RAISED.__getitem__, run[0]))}}}", text)
    text = _LOWERED_RUN.sub(lambda run: f"_{{{''.join(map(_LOWERED.__getitem__, run[0]))}}}", text)
    text = _roots(text).translate(_TABLE)
    return text if text.isascii() else unicodedata.normalize("NFKC", text).translate(_TABLE)


def _roots(text: str) -> str:
    r"""The radicand of a root sign is a number, a letter or a group: ``2√13`` is ``2\sqrt{13}``."""
    if not any(sign in text for sign in _DEGREE):
        return text
    rewritten: list[str] = []
    position = 0
    for root in _ROOT.finditer(text):
        if root.start() < position:  # within the group of another root
            continue
        rewritten.append(text[position : root.start()] + "\\sqrt" + _DEGREE[root[1]])
        position = root.end()
        if root[2]:
            rewritten.append(f"{{{root[2]}}}")
        elif root[3] and (end := group_end(text, position)):
            rewritten.append(f"{{{_roots(text[position + 1 : end - 1])}}}")
            position = end
        else:
            rewritten.append(" ")
    return "".join(rewritten) + text[position:]


def group_end(text: str, start: int) -> int | None:
    """The end of the parentheses that open at ``start``."""
    depth = 0
    for position in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if depth == 0:
            return position + 1
    return None
