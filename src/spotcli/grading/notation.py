r"""The table of notations that ``latex`` rewrites: pairs of a pattern and its replacement.

A rule changes only the notation, never the meaning. The order matters: a rule may need the result of an earlier one.
"""

from __future__ import annotations

_NAMES = "arcsin|arccos|arctan|arccot|sinh|cosh|tanh|sin|cos|tan|cot|csc|ln|log|lg|exp"
"""Functions that people write without a backslash; ``sec`` is rather a unit, and ``min`` too."""
_ORDINAL = "(?:st|nd|rd|th)"
RULES = [
    (r"(?:\\left\s*)?\(\s*(?:\\!\s*)+\\[dt]?binom\s*\{([^{}]*)\}\s*\{([^{}]*)\}\s*(?:\\!\s*)+(?:\\right\s*)?\)",
     r"\\binom{\1+\2-1}{\2}"),  # combinations with repetition
    (r"(?<=\d)(?:\{,\}|\\!,|,\s*\\!)\s*(?=\d{3}(?!\d))", ""),  # 10{,}000 and 11,\! 111
    (r"\{,\}|\\!,|,\\!\s*", ","),
    (r"(?:\\text)?\{\s*([:;=])\s*\}", r"\1"),
    (r"\\(?:mathrm|text|rm)\s*\{\s*\\[dt]?frac\s*\{([A-Za-z\s]+)\}\s*\{([A-Za-z\s]+)(\^\s*\{?\d\}?)?\}\s*\}",
     r"\\text{\1}/\\text{\2}\3"),  # 10 \mathrm{\frac{m}{s}}
    (r"(?<=\d)((?:\s|\\[ ,;:!]|~)*)\{?\\(?:mathrm|text)\s*\{\s*(?:\\mu|\\text\{μ\})\s*([A-Za-z]{1,3})\s*\}",
     r"\1\\text{micro\2}"),
    (r"(?<=\d)((?:\s|\\[ ,;:!]|~)*)\\mu\s*(?:\\(?:mathrm|text)\s*\{\s*([A-Za-z]{1,3})\s*\}|([mFCsL]))\s*$",
     r"\1\\text{micro\2\3}"),
    (r"(?<=\d)((?:\s|\\[ ,;:!]|~)*)\\(?:mathrm|text)\s*\{\s*([kM]?)\s*\\Omega\s*\}", r"\1\\text{\2ohm}"),
    (r"(?<=\d)((?:\s|\\[ ,;:!]|~)*+)(?:\\(?:mathrm|text)\s*\{\s*([kM])\s*\}\s*+)?\\Omega\s*$", r"\1\\text{\2ohm}"),
    (r"\\AA(?![a-zA-Z])", r"\\text{angstrom}"),
    (r"\\text\s*\{\s*\\(USD|EUR|GBP|YEN|INR|KRW)\s*\}", r"\\\1 "),
    (r"\\(?:text|mathrm)\s*\{\s*(USD|EUR|GBP|INR)\s*\}\s*(?=\d)", r"\\\1 "),
    (r"\\text\s*\{\s*Rs\.?\s*\}\s*(?=\d)", r"\\INR "),
    (r"\\(?:mathrm|mathbf|mathit|boldsymbol|bm|textbf)\s*(?=\{[^{}]*\\)", ""),  # bold around a formula
    (r"\\(?:mathbf|mathit|boldsymbol|bm|textbf)\s*(?=\{[^{}]*(?:[+=^_*]|\s-\s))", ""),
    (r"(?<=\d)(?:\\[,;: ]|~|\{(?:\s|\\,)\})(?=\d{3}(?!\d))", ""),  # 10\,000
    (r"(?<=,)\\[!,;: ](?=\s*\d{3})", ""),
    (r"\\+euro?\b(?:\{\})?", r"\\EUR "),
    (r"\\pounds?\b", r"\\GBP "),
    (r"(\\(?:sin|cos|tan|cot|sec|csc|ln|log)(?:\^\{?\d\}?)?\s*\{?\d*(?:\\[a-z]+|[a-z])\}?)\\[,;:]\s*(?=[A-Za-z\\])",
     r"\1 \\cdot "),  # \sin \theta \, v
    (r"\\[!,;:>]|~|\\q?quad(?![a-z])|\\ |\\(?:displaystyle|textstyle|limits|nolimits)(?![a-z])", " "),
    (r"\\phantom\{[^{}]*\}", " "),
    (r"\\(?:[bB]igg?[lrm]?|m?left|m?right|middle)(?![a-zA-Z])\s*\.?", ""),
    (r"\\(?:dfrac|tfrac|cfrac)(?![a-z])", r"\\frac"),
    (r"\\[dt]binom(?![a-z])", r"\\binom"),
    (r"\{\s*([^{}\\]*?)\s*\\choose\s*([^{}\\]*?)\s*\}", r"\\binom{\1}{\2}"),
    (r"\\(?:tiny|small|normalsize|large|Large|LARGE|huge|Huge|bf|it|sf|tt)(?![a-zA-Z])", " "),
    (r"\\(?:textcolor|colorbox)\s*(?:\[\w*\])?\s*\{[^{}]*\}|\\color\s*(?:\[\w*\]\s*)?\{[^{}]*\}", " "),
    (r"\\(?:blacksquare|square|Box|qed|QED|checkmark)(?![a-zA-Z])\s*$", ""),
    (r"\\langle(?![a-z])(.*)\\rangle(?![a-z])", r"(\1)"),
    (r"\\mathbb\s*(?:\{\s*R\s*\}|R(?![A-Za-z]))|\\(?:R|Reals)(?![a-zA-Z])", r"\\reals "),
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
    (r"\\triangle(?![a-z])", " "),
    (r"\\(?:varphi|straightphi)(?![a-z])", r"\\phi "),
    (r"\\varepsilon(?![a-z])", r"\\epsilon "),
    (r"\\(?:lor|vee)(?![a-z])", r"\\text{ or }"),
    (r"\\(?:land|wedge)(?![a-z])", r"\\text{ and }"),
    (r"\\text\{\s*(?:percent|percentage|per cent|pct)\s*\}|\\%", "%"),
    (r"(?<![a-z])(?:percentage|percent|per cent|pct)(?![a-z])", "%"),
    (r"\(\s*(?:\\text\{\s*)?\\?b?mod(?:ulo)?\b\s*\}?\s*([^()]*?)\s*\)", r" \\pmod{\1}"),
    (r"\\pmod\s*(\w)", r" \\pmod{\1}"),
    (r"(?:\\text\{\s*|\\b|\\|(?<![A-Za-z\\]))mod(?:ulo)?\s*\}?\s*(\d+|[a-z](?![a-z]))", r" \\pmod{\1}"),
    (r"^\\text\{\s*(?:about|approximately|approx\.?|roughly|around|exactly|just|only|a total of)\s*\}\s*(?=[\\\d-])",
     ""),
    (r"\\text\{\s*((?:\(?[A-J]\)?\s*,\s*(?:and\s+)?)++(?:and\s+)?\(?[A-J]\)?|\(?[A-J]\)? and \(?[A-J]\)?)\s*\}",
     r" \1 "),
    (r"\\text\s*\{\s*(?:gcd|GCD)\s*\}\s*(?=\()", r"\\gcd "),
    (r"\\text\s*\{\s*(?:lcm|LCM)\s*\}\s*(?=\()", r"\\lcm "),
    (r"^\\text\{\s*(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s*:?\s*\}\s*\(?([A-J])\)?$", r"\1"),
    (r"\\text\{\s*infinity\s*\}", r"\\infty "),
    (r"^(?:\\text\{\s*)?(?:[Aa]ll )?[Rr]eals?(?: numbers?)?(?: \w)? (?:except|excluding|other than)(?: for)?(?:\s*\})?"
     r"\s*([^{}]{1,40})\}?$",
     r"\\reals \\setminus \\{\1\\}"),
    (r"\\\{\s*\\\}", r"\\emptyset "),
    (r"\\(?:overline|overrightarrow|overleftrightarrow|vec)\s*\{\s*([A-Z]{1,3})\s*\}", r"\1"),  # segments
    (r"\\text\{([^{}]*\d[^{}]*)\}", r" \1 "),
    (r"(?<=\d)\s*(?:\\text\{)?\s*[aA]\.?\s?[mM](?:\.|(?![a-zA-Z]))\s*\}?", r" \\text{am}"),
    (r"(?<=\d)\s*(?:\\text\{)?\s*[pP]\.?\s?[mM](?:\.|(?![a-zA-Z]))\s*\}?", r" \\text{pm}"),
    (r"(?<=\d)\s*\\text\{\s*and (?:a|one)[ -]half(?![a-z])\s*", r"\\frac{1}{2}\\text{"),
    (r"(?<=\d)\s*and (?:a|one)[ -]half(?![a-z])", r"\\frac{1}{2}"),
    (r"\\frac\s*\{\s*\\text\s*\{([^{}]*)\}\s*\}\s*\{\s*\\text\s*\{([^{}]*)\}\s*(\^\s*\{?\d\}?)?\s*\}",
     r"\\text{\1}/\\text{\2}\3"),  # a unit as a fraction
    (r"^(\d+)\s*'\s*-?\s*(\d+(?:\.\d+)?)\s*(?:\"|'')$", r"\1\\text{ft} \2\\text{in}"),  # 6'2"
    (r"\\text\{\s*\}", " "),
    (r"(?<![\w.])0b([01]+)(?!\w)", r"\1_{2}"),
    (r"(?<![\w.])0x([0-9A-Fa-f]+)(?!\w)", r"\1_{16}"),
    (r"(?<=\d)\s*[xX]\s*(?=\d)", r"\\times "),
    (r"(?<=\d)\s*(?:\\text\{\s*(?:[a-z]{1,12}\s+)?by\s*\}|(?:(?:cm|mm|m|km|ft|in|feet|inches|meters|units)\s+)?by(?![a-z]))"
     r"\s*(?=\d)", r"\\times "),
    (r"(?<=\d)\s*(?:\\text\{\s*(?:in|out of)\s*\}|(?:in|out of)(?![a-z]))\s*(?=\d)", "/"),
    (r"(?<=\d)\s*to\s*(?=\d)", ":"),
    (rf"(?<=\d)\s*(?:\^\s*\{{\s*(?:\\text\{{\s*{_ORDINAL}\s*\}}|{_ORDINAL})\s*\}}"  # 42nd
     rf"|\^?\s*\\text\{{\s*{_ORDINAL}\s*\}}|{_ORDINAL}(?![A-Za-z]))", ""),
    (r"\^\\circ\s*(?:\\text\{\s*C\s*\}|C(?![A-Za-z]))", r"\\text{celsius}"),
    (r"\^\\circ\s*(?:\\text\{\s*F\s*\}|F(?![A-Za-z]))", r"\\text{fahrenheit}"),
    (r"degrees? (celsius|fahrenheit)", r"\1"),
    (r"(?<![A-Za-z])(sq|cu)\.", r"\1"),
    (r"(?:\\ldots|\\dots[a-z]?|\\cdots|\.\.\.+)(?![a-z])", r"\\ldots "),
    (r"(?<=[\d.])\\dot\s*\{?(\d)\}?(\d*)\\dot\s*\{?(\d)\}?", r"\\overline{\1\2\3}"),
    (r"(?<=[\d.])\\dot\s*\{?(\d)\}?", r"\\overline{\1}"),
    (r"^(-?\d+\.\d*)\((\d+)\)$", r"\1\\overline{\2}"),
    (r"^\](.+,.+)([\[\]])$", r"(\1\2"),  # ]2,5[ is (2,5)
    (r"^([\[(].+,.+)\[$", r"\1)"),
    (r"\*\*", "^"),
    (r"(?<![A-Za-z])np\.(?=[a-z])", r"\\"),  # a reference written as numpy code
    (r"(?<![A-Za-z\\])(sqrt|pi|infinity|infty)(?![A-Za-z])", r"\\\1 "),
    (r"(?<=[)\]}])\s*cup\s*(?=[(\[{\\])", r"\\cup "),
    (r"(?<![A-Za-z\\])(?:oo|inf)(?![A-Za-z])", r"\\infty "),
    (r"\\infinity(?![a-z])", r"\\infty "),
    (r"(?<![A-Za-z\\])cbrt\s*\(([^()]*)\)", r"\\sqrt[3]{\1}"),
    (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
    (r"\\sqrt\s*(\d{2,})", r"\\sqrt{\1}"),
    (rf"\\text\s*\{{\s*({_NAMES})\s*\}}", r"\\\1 "),
    (r"(?<![A-Za-z\\])log\s*_?\s*\{?(2|10)\}?\s*(?=\()", r"\\log_{\1}"),
    (rf"(?<![A-Za-z\\])({_NAMES})(?![A-Za-z])", r"\\\1 "),
    (r"(?<![A-Za-z\\])(sin|cos|tan|ln)(?=[xy](?![A-Za-z]))", r"\\\1 "),
    (r"(?<![A-Za-z\\])(sec|max|min|gcd|lcm)(?=\s*[(^])", r"\\\1 "),
    (r"(?<![A-Za-z\\])a(sin|cos|tan)(?=\s*\()", r"\\arc\1 "),
    (r"(?<![A-Za-z\\])abs\s*\(([^()]*)\)", r"|\1|"),
    (r"\s+", " "),
]  # fmt: skip
"""Patterns and their replacements; the order matters."""
