r"""Reading and comparing numbers: ``\frac{16}{25}``, ``-3 1/2``, ``1.24\times10^{-8}``, ``2\sqrt{3}+\pi``, ``1/2004!``.

A small recursive-descent parser for arithmetic, based on ``fractions`` and ``decimal``. It handles the common cases
without sympy and never evaluates text as code. Rational results are exact; roots and pi have 120 digits. Texts with a
variable or a function raise ``NotANumber`` and are left to sympy.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, DecimalException, Overflow, localcontext
from fractions import Fraction

_DIGITS = 120
"""Of irrational results; more than any comparison needs, so that cancellation does no harm."""
_EXACT_BITS = 40_000
"""Size of the largest integer that is computed exactly."""
_MAX_LENGTH = 600
_MAX_DEPTH = 40
PI = Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211706798214808651"
    "328230664709384460955058223172535940812848111745"
)

Real = Fraction | Decimal


class NotANumber(Exception):
    """The text is not arithmetic on numbers."""


class TooLarge(NotANumber):
    """A number of this size cannot be computed exactly."""


@dataclass(frozen=True, slots=True)
class ExactNumber:
    """A number read from a text."""

    value: Real
    rounded: bool = False
    """Whether the text contains a decimal point or an exponent; the number may then be an approximation."""
    places: int | None = None
    """Digits after the decimal point, if the text is a plain decimal."""
    digits: int = 0
    """Significant digits of a plain decimal."""


def exact_context() -> Context:
    """The context of irrational results."""
    return Context(prec=_DIGITS, Emax=MAX_EMAX, Emin=MIN_EMIN)


_LITERAL = re.compile(r"([+-]?)\s*(\d+(?:\.\d*)?|\.\d+)(?:[eE]([+-]?\d{1,5}))?")
_SCIENTIFIC = re.compile(
    r"([+-]?)\s*(\d+(?:\.\d*)?|\.\d+)\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:\{\s*([+-]?\s*\d{1,5})\s*\}|([+-]?\d{1,5}))"
)

_REPEATING = re.compile(r"(-?)(\d{1,30})\.(\d{0,30})\\(?:overline|bar)\s*\{\s*(\d{1,30})\s*\}")


def read_number(text: str) -> ExactNumber:
    """Compute the number of a tidy text.

    Raises:
        NotANumber: the text is not arithmetic on numbers.
        TooLarge: the number is too large to compute.
    """
    if literal := _LITERAL.fullmatch(text) or _SCIENTIFIC.fullmatch(text):
        sign, digits = literal[1], literal[2]
        exponent = next((group for group in literal.groups()[2:] if group), "0").replace(" ", "")
        return _literal(sign, digits, int(exponent))
    if repeating := _REPEATING.fullmatch(text):
        sign, whole, fixed, period = repeating.groups()
        start = Fraction(int(whole + fixed), 10 ** len(fixed))
        repeated = start + Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed))
        return ExactNumber(-repeated if sign else repeated)
    if len(text) > _MAX_LENGTH:
        raise NotANumber(text[:40])
    reader = _Reader(text)
    with localcontext(exact_context()):
        try:
            value = reader.whole()
        except Overflow as error:
            raise TooLarge(text[:40]) from error
        except (ZeroDivisionError, DecimalException, RecursionError, ValueError) as error:
            raise NotANumber(text[:40]) from error
    return ExactNumber(value, rounded=reader.rounded)


def _literal(sign: str, digits: str, exponent: int) -> ExactNumber:
    if len(digits) > 4000 or abs(exponent) > 5000:
        raise TooLarge(digits[:40])
    value = Fraction(digits if digits[-1] != "." else digits[:-1]) * Fraction(10) ** exponent
    fraction = digits.partition(".")[2]
    significant = len(digits.replace(".", "").lstrip("0"))
    decimal = "." in digits
    return ExactNumber(
        -value if sign == "-" else value,
        rounded=decimal or exponent != 0,
        places=len(fraction) - exponent if decimal or exponent else None,
        digits=significant,
    )


_TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d*)?|\.\d+)|\\([A-Za-z]+)|\\([{}])|(.))", re.DOTALL)


class _Reader:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        self.spaced: list[bool] = []  # whether a space precedes the token: "3 1/2" is a mixed number
        for mark in _TOKEN.finditer(text.strip()):
            number, command, brace, other = mark.groups()
            self.tokens.append(number or ("\\" + command if command else None) or brace or other)
            self.spaced.append(mark[0][0].isspace())
        self.position = 0
        self.depth = 0
        self.rounded = False

    def peek(self, ahead: int = 0) -> str:
        return self.tokens[self.position + ahead] if self.position + ahead < len(self.tokens) else ""

    def take(self, expected: str | None = None) -> str:
        token = self.peek()
        if not token or (expected is not None and token != expected):
            raise NotANumber(f"expected {expected}, got {token}")
        self.position += 1
        return token

    def whole(self) -> Real:
        value = self.sum()
        if self.position != len(self.tokens):
            raise NotANumber(self.peek())
        return value

    def sum(self) -> Real:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise NotANumber("nested too deeply")
        negative = False
        while self.peek() in ("+", "-"):
            negative ^= self.take() == "-"
        value = self.product()
        value = -value if negative else value
        while self.peek() in ("+", "-"):
            sign = self.take()
            term = self.product()
            value = _add(value, term if sign == "+" else -term)
        self.depth -= 1
        return value

    def product(self) -> Real:
        value = self.power()
        slash = False
        while True:
            token = self.peek()
            if token in ("*", "\\times", "\\cdot"):
                self.take()
                value = _multiply(value, self.signed())
            elif token in ("/", "\\div"):
                self.take()
                value = _divide(value, self.signed())
                slash = True
            elif token in ("(", "\\sqrt", "\\pi", "\\frac", "{", "\\binom"):
                if slash:  # people read 1/2\pi in two ways
                    raise NotANumber("ambiguous product after a slash")
                value = _multiply(value, self.power())
            else:
                return value

    def signed(self) -> Real:
        if self.peek() in ("-", "+"):
            return -self.signed() if self.take() == "-" else self.signed()
        return self.power()

    def power(self) -> Real:
        value = self.atom()
        while True:
            if self.peek() == "!":
                self.take()
                value = _factorial(value)
            elif self.peek() == "^":
                self.take()
                value = _power(value, self.exponent())
            else:
                return value

    def exponent(self) -> Real:
        if self.peek() in ("-", "+"):
            return -self.exponent() if self.take() == "-" else self.exponent()
        value = self.atom()
        return _power(value, self.exponent()) if self.peek() == "^" and self.take() else value

    def atom(self) -> Real:
        token = self.take()
        if token[0].isdigit() or token[0] == ".":
            return self.number(token)
        if token in ("(", "{", "["):
            value = self.sum()
            self.take({"(": ")", "{": "}", "[": "]"}[token])
            return value
        if token == "\\frac":
            upper = self.argument()
            return _divide(upper, self.argument())
        if token == "\\sqrt":
            root: Real = Fraction(2)
            if self.peek() == "[":
                self.take()
                root = self.sum()
                self.take("]")
            return _root(self.argument(), root)
        if token == "\\pi":
            return PI
        if token == "\\binom":
            upper, lower = self.argument(), self.argument()
            return _binomial(upper, lower)
        raise NotANumber(token)

    def argument(self) -> Real:
        """The argument of a command: a group, or one digit."""
        if self.peek() == "{":
            return self.atom()
        token = self.take()
        if not token.isdigit():
            raise NotANumber(token)
        if len(token) > 1:  # \sqrt12 is \sqrt{1}2 in LaTeX, but people mean \sqrt{12}
            raise NotANumber("unbraced argument")
        return Fraction(token)

    def number(self, token: str) -> Real:
        if len(token) > 4000:
            raise TooLarge(token[:40])
        self.rounded |= "." in token
        value = Fraction(token)
        if "." not in token:  # mixed numbers: 1\frac{3}{4}, 1 3/4
            following = "".join(self.tokens[self.position : self.position + 7])
            if mixed := re.match(r"\\frac\{(\d+)\}\{(\d+)\}", following):
                self.position += 7
                return value + Fraction(int(mixed[1]), int(mixed[2]))
            if self.peek().isdigit() and self.spaced[self.position] and self.peek(1) == "/" and self.peek(2).isdigit():
                upper, lower = int(self.peek()), int(self.peek(2))
                self.position += 3
                return value + Fraction(upper, lower)
        return value


def decimal_of(value: Real) -> Decimal:
    """The value as a decimal number, in the current context."""
    return value if isinstance(value, Decimal) else Decimal(value.numerator) / Decimal(value.denominator)


def _add(a: Real, b: Real) -> Real:
    return a + b if isinstance(a, Fraction) and isinstance(b, Fraction) else decimal_of(a) + decimal_of(b)


def _multiply(a: Real, b: Real) -> Real:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        if a.numerator.bit_length() + b.numerator.bit_length() > _EXACT_BITS:
            raise TooLarge("product")
        return a * b
    return decimal_of(a) * decimal_of(b)


def _divide(a: Real, b: Real) -> Real:
    return a / b if isinstance(a, Fraction) and isinstance(b, Fraction) else decimal_of(a) / decimal_of(b)


def _power(base: Real, exponent: Real) -> Real:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction):
        if exponent.denominator == 1:
            size = max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(exponent.numerator)
            if size <= _EXACT_BITS:
                return base**exponent.numerator
        elif (root := _exact_root(base, exponent)) is not None:
            return root
        if base < 0:
            raise NotANumber("root of a negative number")
    if decimal_of(base) < 0:
        raise NotANumber("power of a negative number")
    return decimal_of(base) ** decimal_of(exponent)


def _root(value: Real, degree: Real) -> Real:
    """The real root; a negative number has one if the degree is odd."""
    if value < 0 and isinstance(degree, Fraction) and degree.denominator == 1 and degree.numerator % 2:
        return -_power(-value, 1 / degree)
    return _power(value, _divide(Fraction(1), degree))


def _exact_root(base: Fraction, exponent: Fraction) -> Fraction | None:
    degree = exponent.denominator
    if base <= 0 or degree > 64 or abs(exponent.numerator) > 64 or base.numerator.bit_length() > 2000:
        return Fraction(0) if base == 0 and exponent > 0 else None

    def integer_root(n: int) -> int | None:
        guess = math.isqrt(n) if degree == 2 else round(n ** (1 / degree)) if n.bit_length() < 1000 else 0
        return next((r for r in (guess - 1, guess, guess + 1) if r >= 0 and r**degree == n), None)

    upper, lower = integer_root(base.numerator), integer_root(base.denominator)
    return None if upper is None or lower is None else Fraction(upper, lower) ** exponent.numerator


def _whole_number(value: Real, limit: int) -> int:
    if not isinstance(value, Fraction) or value.denominator != 1 or value < 0:
        raise NotANumber("the factorial or binomial of a number that is not a natural number")
    if value > limit:
        raise TooLarge("factorial or binomial")
    return value.numerator


def _factorial(value: Real) -> Fraction:
    return Fraction(math.factorial(_whole_number(value, 3000)))


def _binomial(upper: Real, lower: Real) -> Fraction:
    return Fraction(math.comb(_whole_number(upper, 3000), _whole_number(lower, 3000)))
