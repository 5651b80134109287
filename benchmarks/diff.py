"""The CPU time of the diff that `spot inspect` shows, and of its lines on the screen.

    python benchmarks/diff.py --tokens 8000
    python benchmarks/diff.py --tokens 8000 --data FILE

Answers are drawn from random words and symbols; with ``--data``, they are real wrong answers and their corrections,
joined until they are long enough (a JSONL file with ``wrong_prefix`` and ``corrected_prefix``). Tokens are words,
numbers and symbols. Every diff is checked: its spans must join to both answers.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from pathlib import Path

from spotcli.core.edits import diff, words
from spotcli.inspection.diff_lines import MOST_COLUMNS, blocks, fold, inline

KINDS = ("one edit", "edits", "unrelated")
Pair = tuple[str, str]

_VOCABULARY = [f"{first}{second}" for first in ("con", "in", "re", "sub", "dis") for second in ("sume", "fer", "tend")]
_PIECES = [*_VOCABULARY, "the", "is", "=", "+", "\\frac{1}{2}", "12", "7", ".", "\n", "$x$"]


def drawn(generator: random.Random) -> Pair:
    """A random passage, and itself with a few words replaced."""
    old = generator.choices(_PIECES, k=120)
    new = [generator.choice(_PIECES) if generator.random() < 0.05 else piece for piece in old]
    return " ".join(old), " ".join(new)


def size(text: str) -> int:
    """The number of words, numbers and symbols."""
    return sum(not piece.isspace() for piece in words(text))


def long_pair(passages: list[Pair], kind: str, tokens: int, generator: random.Random) -> Pair:
    """Two answers of at least ``tokens`` tokens: with one corrected passage, all corrected, or nothing in common."""
    old: list[str] = []
    new: list[str] = []
    length = 0
    while length < tokens:
        wrong, corrected = generator.choice(passages)
        if kind == "unrelated":
            corrected = generator.choice(passages)[1]
        elif kind == "one edit" and old:
            corrected = wrong
        old.append(wrong)
        new.append(corrected)
        length += size(wrong)
    return "\n".join(old), "\n".join(new)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8000, help="Tokens per answer.")
    parser.add_argument("--pairs", type=int, default=20, help="Pairs of each kind.")
    parser.add_argument("--data", type=Path, help="Real corrections.")
    options = parser.parse_args()
    generator = random.Random(0)
    if options.data is None:
        passages = [drawn(generator) for _ in range(200)]
    else:
        rows = map(json.loads, options.data.read_text(encoding="utf-8").splitlines())
        pairs = ((row["wrong_prefix"], row["corrected_prefix"]) for row in rows)
        passages = [(wrong, corrected) for wrong, corrected in pairs if wrong and corrected]
    for kind in KINDS:
        compared, laid_out = [], []
        for _ in range(options.pairs):
            old, new = long_pair(passages, kind, options.tokens, generator)
            started = time.process_time()
            spans = diff(old, new)
            compared.append((time.process_time() - started) * 1e3)
            started = time.process_time()
            fold(inline(blocks(spans), MOST_COLUMNS, marked=True))
            laid_out.append((time.process_time() - started) * 1e3)
            for text, side in ((old, "deleted"), (new, "inserted")):
                if "".join(span.text for span in spans if span.kind in ("kept", side)) != text:
                    raise SystemExit(f"{kind}: the spans do not join to the answer")
        print(
            f"{kind:10s} {options.tokens} tokens: diff {statistics.median(compared):5.1f} ms, at most "
            f"{max(compared):5.1f} ms; lines {statistics.median(laid_out):5.1f} ms, at most {max(laid_out):5.1f} ms"
        )


if __name__ == "__main__":
    main()
