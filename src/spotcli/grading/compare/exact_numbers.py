r"""Numbers, exactly: ``\frac{16}{25}``, ``-3 1/2``, ``1.24\times10^{-8}``, ``2\sqrt{3}+\pi``, ``1/2004!``.

A small recursive reader for arithmetic on numbers, on ``fractions`` and ``decimal``. It answers the common
cases without sympy, and it never evaluates text as code. Rational results are exact; surds and pi carry 120
digits. Everything with a variable or a function is left to sympy (``NotANumber``).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, DecimalException, Overflow, localcontext
from fractions import Fraction

DIGITS = 120  # of irrational results; far more than any comparison needs, so that cancellation does no harm
_EXACT_BITS = 40_000  # an exact integer beyond this size is compared by its logarithm only
_MAX_LENGTH = 600
_MAX_DEPTH = 40
PI = Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211706798214808651"
    "328230664709384460955058223172535940812848111745"
)

Real = Fraction | Decimal


class NotANumber(Exception):
    """The text is no arithmetic on numbers."""


class TooLarge(NotANumber):
    """A number of this size cannot be computed exactly."""


@dataclass(frozen=True, slots=True)
class Number:
    """``value``; ``places``: digits after the point where the text is a plain decimal, else None;
    ``rounded``: whether a decimal point occurs (such a number may be an approximation); ``digits``:
    significant digits of a plain decimal."""

    value: Real
    rounded: bool = False
    places: int | None = None
    digits: int = 0


def _context() -> Context:
    return Context(prec=DIGITS, Emax=MAX_EMAX, Emin=MIN_EMIN)


_LITERAL = re.compile(r"([+-]?)\s*(\d+(?:\.\d*)?|\.\d+)(?:[eE]([+-]?\d{1,5}))?")
_SCIENTIFIC = re.compile(
    r"([+-]?)\s*(\d+(?:\.\d*)?|\.\d+)\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:\{\s*([+-]?\s*\d{1,5})\s*\}|([+-]?\d{1,5}))"
)

_REPEATING = re.compile(r"(-?)(\d{1,30})\.(\d{0,30})\\(?:overline|bar)\s*\{\s*(\d{1,30})\s*\}")


def read_number(text: str) -> Number:
    """The number that a tidy text stands for. Raises NotANumber."""
    if found := _LITERAL.fullmatch(text) or _SCIENTIFIC.fullmatch(text):
        sign, digits = found[1], found[2]
        exponent = next((g for g in found.groups()[2:] if g), "0").replace(" ", "")
        return _literal(sign, digits, int(exponent))
    if found := _REPEATING.fullmatch(text):
        sign, whole, fixed, period = found.groups()
        start = Fraction(int(whole + fixed), 10 ** len(fixed))
        repeated = start + Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed))
        return Number(-repeated if sign else repeated)
    if len(text) > _MAX_LENGTH:
        raise NotANumber(text[:40])
    reader = _Reader(text)
    with localcontext(_context()):
        try:
            value = reader.whole()
        except Overflow as error:
            raise TooLarge(text[:40]) from error
        except (ZeroDivisionError, DecimalException, RecursionError, ValueError) as error:
            raise NotANumber(text[:40]) from error
    return Number(value, rounded=reader.rounded)


def _literal(sign: str, digits: str, exponent: int) -> Number:
    if len(digits) > 4000 or abs(exponent) > 5000:
        raise TooLarge(digits[:40])
    value = Fraction(digits if digits[-1] != "." else digits[:-1]) * Fraction(10) ** exponent
    fraction = digits.partition(".")[2]
    significant = len(digits.replace(".", "").lstrip("0"))
    decimal = "." in digits
    return Number(
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
        self.spaced: list[bool] = []  # whether a space stood before the token: "3 1/2" is a mixed number
        for mark in _TOKEN.finditer(text.strip()):
            number, command, brace, sign = mark.groups()
            self.tokens.append(number or ("\\" + command if command else None) or brace or sign)
            self.spaced.append(mark[0][0].isspace())
        self.at = 0
        self.depth = 0
        self.rounded = False

    def peek(self, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else ""

    def take(self, expected: str | None = None) -> str:
        token = self.peek()
        if not token or (expected is not None and token != expected):
            raise NotANumber(f"expected {expected}, found {token}")
        self.at += 1
        return token

    def whole(self) -> Real:
        value = self.sum()
        if self.at != len(self.tokens):
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
                if slash:  # 1/2\pi is read either way by people
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
            return _power(self.argument(), _divide(Fraction(1), root))
        if token == "\\pi":
            return PI
        if token == "\\binom":
            upper, lower = self.argument(), self.argument()
            return _binomial(upper, lower)
        raise NotANumber(token)

    def argument(self) -> Real:
        """What follows a command: a group, or one digit."""
        if self.peek() == "{":
            return self.atom()
        token = self.take()
        if not token.isdigit():
            raise NotANumber(token)
        if len(token) > 1:  # \sqrt12 is \sqrt{1}2 in LaTeX, and something else for people
            raise NotANumber("unbraced argument")
        return Fraction(token)

    def number(self, token: str) -> Real:
        if len(token) > 4000:
            raise TooLarge(token[:40])
        self.rounded |= "." in token
        value = Fraction(token)
        if "." not in token:  # mixed numbers: 1\frac{3}{4}, 1 3/4
            following = "".join(self.tokens[self.at : self.at + 7])
            if mixed := re.match(r"\\frac\{(\d+)\}\{(\d+)\}", following):
                self.at += 7
                return value + Fraction(int(mixed[1]), int(mixed[2]))
            if self.peek().isdigit() and self.spaced[self.at] and self.peek(1) == "/" and self.peek(2).isdigit():
                upper, lower = int(self.peek()), int(self.peek(2))
                self.at += 3
                return value + Fraction(upper, lower)
        return value


def _decimal(value: Real) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(value.numerator) / Decimal(value.denominator)


def _add(a: Real, b: Real) -> Real:
    return a + b if isinstance(a, Fraction) and isinstance(b, Fraction) else _decimal(a) + _decimal(b)


def _multiply(a: Real, b: Real) -> Real:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        if a.numerator.bit_length() + b.numerator.bit_length() > _EXACT_BITS:
            raise TooLarge("product")
        return a * b
    return _decimal(a) * _decimal(b)


def _divide(a: Real, b: Real) -> Real:
    return a / b if isinstance(a, Fraction) and isinstance(b, Fraction) else _decimal(a) / _decimal(b)


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
    if _decimal(base) < 0:
        raise NotANumber("power of a negative number")
    return _decimal(base) ** _decimal(exponent)


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
        raise NotANumber("a factorial or binomial of something that is no natural number")
    if value > limit:
        raise TooLarge("factorial or binomial")
    return value.numerator


def _factorial(value: Real) -> Fraction:
    return Fraction(math.factorial(_whole_number(value, 3000)))


def _binomial(upper: Real, lower: Real) -> Fraction:
    return Fraction(math.comb(_whole_number(upper, 3000), _whole_number(lower, 3000)))


def same_number(gold: Number, answer: Number, tolerance: float) -> bool | None:
    """Whether two numbers are equal: exact ones exactly, those with a decimal point to a relative
    ``tolerance``.

    None where it stays open: one is a correct rounding of the other to at least two digits but to fewer than
    the tolerance asks, or both are too close to tell.
    """
    a, b = gold.value, answer.value
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        if a == b:
            return True
        if (gold.rounded or answer.rounded) and abs(a - b) <= Fraction(tolerance).limit_denominator(10**15) * abs(a):
            return True
        return None if _rounds_to(gold, answer) or _rounds_to(answer, gold) else False
    with localcontext(_context()):
        x, y = _decimal(a), _decimal(b)
        size = max(abs(x), abs(y))
        if size == 0:
            return None
        gap = abs(x - y) / size
    if gold.rounded or answer.rounded:
        if gap <= Decimal(str(tolerance)):
            return True
        return None if _rounds_to(gold, answer) or _rounds_to(answer, gold) else False
    if size.adjusted() > 60 or size.adjusted() < -60:  # equality of numbers of this size is not proved by their digits
        return False if gap > Decimal("1e-40") and size.adjusted() > 60 else None
    return gap < Decimal("1e-50")


def _rounds_to(rounded: Number, other: Number) -> bool:
    """Whether ``rounded`` is what ``other`` gives when it is rounded to as many places."""
    if rounded.places is None or rounded.digits < 2 or abs(rounded.places) > 60:
        return False
    with localcontext(_context()):
        half_step = Decimal(10) ** -rounded.places / 2
        return abs(_decimal(rounded.value) - _decimal(other.value)) <= half_step
