"""Units of measurement: reading them from texts, and converting them into each other."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Unit:
    """A product of powers of base units times a scale."""

    scale: Fraction
    powers: tuple[tuple[str, int], ...]
    known: bool
    """Whether every word is in the table of units."""

    def is_same(self, other: Unit) -> bool:
        """Whether both are the same product with the same scale, whatever their words."""
        return (self.scale, self.powers) == (other.scale, other.powers)


def _unit_table() -> dict[str, tuple[Fraction, dict[str, int]]]:
    lines = """
    m 1 m | meter metre
    km 1000 m | kilometer kilometre
    cm 1/100 m | centimeter centimetre
    mm 1/1000 m | millimeter millimetre
    dm 1/10 m | decimeter
    nm 1/1000000000 m | nanometer nanometre
    microm 1/1000000 m | micrometer micrometre micron
    angstrom 1/10000000000 m |
    in 127/5000 m | inch inches
    ft 381/1250 m | foot feet
    yd 1143/1250 m | yard
    mi 201168/125 m | mile
    s 1 s | sec second
    ms 1/1000 s | millisecond
    micros 1/1000000 s | microsecond
    min 60 s | minute
    h 3600 s | hr hour
    d 86400 s | day
    week 604800 s | wk
    year 1 year | yr
    month 1/12 year |
    kg 1000 g | kilogram
    g 1 g | gram gm
    mg 1/1000 g | milligram
    lb 45359237/100000 g | pound-mass lbs
    oz 45359237/1600000 g | ounce
    ton 1 ton | tonne
    l 1/1000 m3 | liter litre L
    ml 1/1000000 m3 | milliliter millilitre mL
    gal 1 gal | gallon
    USD 1 dollar | dollar buck
    cent 1/100 dollar | ¢
    EUR 1 euro | euro
    GBP 1 sterling | sterling
    YEN 1 yen | yen
    yuan 1 yuan | rmb
    INR 1 rupee | rupee rs Rs
    KRW 1 won | won
    degree 1 degree | deg
    arcminute 1/60 degree | arcmin
    arcsecond 1/3600 degree | arcsec
    celsius 1 celsius | centigrade
    fahrenheit 1 fahrenheit |
    am 1 am |
    pm 1 pm |
    rad 1 rad | radian
    mph 1397/3125 velocity | kmph=5/18
    Hz 1 hertz | hertz
    N 1 newton | newton
    J 1 joule | joule
    kJ 1000 joule | kilojoule
    W 1 watt | watt
    kW 1000 watt | kilowatt
    V 1 volt | volt
    A 1 ampere | ampere amp
    K 1 kelvin | kelvin
    Pa 1 pascal | pascal
    mol 1 mol | mole
    ohm 1 ohm |
    kohm 1000 ohm | kiloohm kilohm
    Mohm 1000000 ohm | megaohm megohm
    eV 1 eV |
    """
    table: dict[str, tuple[Fraction, dict[str, int]]] = {}
    for line in lines.strip().splitlines():
        head, _, others = line.partition("|")
        name, scale, base = head.split()
        powers = {"m": 3} if base == "m3" else {"m": 1, "s": -1} if base == "velocity" else {base: 1}
        for word in [name, *others.split()]:
            word, _, own = word.partition("=")
            table[word] = (Fraction(own or scale), powers)
    return table


_TABLE = _unit_table()
_IDLE = {
    "per", "a", "an", "the", "of", "each", "total", "units", "unit", "approximately", "about", "exactly", "only", "in",
    "is",
}  # fmt: skip
"""Words that do not change a quantity."""
_SQUARE = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_PIECE = re.compile(r"\\?([A-Za-z¢-]+)\.?|\^\s*\{?\s*([+-]?\d+)\s*\}?|(/)|.", re.DOTALL)
_NEWTON_METRE = re.compile(r"(?<![A-Za-z])Nm(?![A-Za-z])")


_INCH = re.compile(r"(?<![A-Za-z])in(?=\s*\.?\s*\}?\s*(?:\^|/|$))")
"""The unit at the end of a text or before a power; elsewhere it is the preposition."""


def _singular(word: str) -> str:
    if len(word) == 1:
        return word
    for candidate in (
        word,
        word.lower(),
        word.rstrip("s"),
        word.lower().removesuffix("s"),
        word.lower().removesuffix("es"),
    ):
        if candidate in _TABLE:
            return candidate
    return word.lower().removesuffix("s") if len(word) > 3 else word.lower()


def is_unit(word: str) -> bool:
    """Whether a word is a known unit."""
    return _singular(word) in _TABLE or word.lower() in _SQUARE


def read_unit(text: str) -> Unit | None:
    r"""The unit in a text, or None: ``cm``, ``\text{ m}/\text{s}^2``, ``square feet``, ``dollars per hour``."""
    scale, powers, known = Fraction(1), dict[str, int](), True
    direction, pending, last = 1, 1, ""
    text = re.sub(r"\\frac\s*\{(.*?)\}\s*\{(.*?)\}", r"\1/\2", text)
    text = _INCH.sub("inch", _NEWTON_METRE.sub("N m", text))
    for mark in _PIECE.finditer(text.replace("\\text", " ")):
        word, power, slash = mark[1], mark[2], mark[3]
        if slash or (word and word.lower() == "per"):
            direction = -1
        elif power and last:
            factor = int(power)
            if abs(factor) > 9:
                return None
            base_scale, base = _TABLE.get(last, (Fraction(1), {last: 1}))
            for name, exponent in base.items():
                powers[name] = powers.get(name, 0) + direction * exponent * (factor - 1)
            scale *= base_scale ** (direction * (factor - 1))
        elif word:
            if word.lower() in _SQUARE:
                pending = _SQUARE[word.lower()]
                continue
            if word.lower() in _IDLE or word in ("cdot", "times"):
                continue
            last = _singular(word)
            known &= last in _TABLE
            base_scale, base = _TABLE.get(last, (Fraction(1), {last: 1}))
            for name, exponent in base.items():
                powers[name] = powers.get(name, 0) + direction * exponent * pending
            scale *= base_scale ** (direction * pending)
            pending = 1
    if not powers and re.fullmatch(r"\W*in\W*", text.replace("\\text", " ")):
        return Unit(_TABLE["in"][0], (("m", 1),), known=True)
    nonzero = tuple(sorted((name, power) for name, power in powers.items() if power))
    return Unit(scale, nonzero, known) if nonzero else None


_RARE = {"dm", "decimeter"}


def conversions(unit: Unit) -> list[Fraction]:
    """Factors that convert a quantity in ``unit`` to the other units of the same kind; empty for compound units."""
    if not unit.known or len(unit.powers) != 1 or unit.powers[0][1] != 1:
        return []
    base = unit.powers[0][0]
    return sorted(
        {
            unit.scale / scale
            for name, (scale, powers) in _TABLE.items()
            if powers == {base: 1} and scale != unit.scale and name not in _RARE
        }
    )
