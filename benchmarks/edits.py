"""The change ratio beside difflib, and replies as edits beside rewrites on real corrections.

    python benchmarks/edits.py --pairs 4000 --tokens 2000
    python benchmarks/edits.py --data FILE

Without ``--data``: the exact LCS and the filter for many long pairs, the same by difflib for a few of them (it takes
too long for all), and equality with a textbook dynamic programme on 1,000 random cases.

``--data`` names a JSONL file of wrong answers with a human's correction of the first wrong step (``wrong``,
``wrong_prefix``, ``corrected_prefix``). Scripted editors write that correction as hunks, which are read and
applied as an oracle's are; a reply that cannot be applied is paid for, asked for again and then
rewritten, as `spot rectify` does:

    lines    each changed line whole                       words    the changed words and three on both sides
    unique   the changed words and as many around them as make the text to find unique, as the oracle is asked to

``first step`` cuts the answer behind the corrected step, so that all of it has a human's correction; ``whole answer``
leaves the later steps as they are, so it counts the least that a correction can need.
"""

from __future__ import annotations

import argparse
import difflib
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path

from spotcli.core import edits, prompts

FENCE = "0123456789ab"
GAMMA = 0.6
Hunks = list[tuple[str, str]]


def textbook(left: list[int], right: list[int]) -> int:
    row = [0] * (len(right) + 1)
    for one in left:
        before = 0
        for at, other in enumerate(right, 1):
            before, row[at] = row[at], before + 1 if one == other else max(row[at], row[at - 1])
    return row[-1]


def long_pairs(count: int, tokens: int, chance: random.Random) -> Iterator[tuple[list[int], list[int]]]:
    """Pairs with tokens by the law of Zipf, as words are, and 5 to 60 of a hundred replaced in runs."""
    vocabulary = range(32_000)
    weights = list(accumulate(1 / (rank + 1) for rank in vocabulary))
    for _ in range(count):
        rejected = chance.choices(vocabulary, cum_weights=weights, k=tokens)
        chosen, share = list(rejected), chance.uniform(0.05, 0.6)
        while share > 0:
            length = min(chance.randint(1, 60), tokens)
            start = chance.randrange(tokens - length + 1)
            chosen[start : start + length] = chance.choices(vocabulary, cum_weights=weights, k=length)
            share -= length / tokens
        yield rejected, chosen


def by_difflib(rejected: list[int], chosen: list[int], autojunk: bool) -> float:
    blocks = difflib.SequenceMatcher(None, rejected, chosen, autojunk).get_matching_blocks()
    return 1 - sum(block.size for block in blocks) / len(chosen)


def speed(count: int, tokens: int, few: int) -> None:
    pairs = list(long_pairs(count, tokens, random.Random(0)))
    began = time.perf_counter()
    ratios = [edits.change_ratio(*pair) for pair in pairs]
    kept = sum(ratio <= GAMMA for ratio in ratios)
    ours = time.perf_counter() - began
    print(f"{count} pairs of {tokens} tokens: {ours:.2f} s, {ours / count * 1e3:.3f} ms a pair; gamma keeps {kept}")
    for autojunk in (False, True):
        began = time.perf_counter()
        theirs = [by_difflib(*pair, autojunk) for pair in pairs[:few]]
        each = (time.perf_counter() - began) / few
        over = [one - exact for one, exact in zip(theirs, ratios, strict=False)]
        print(
            f"difflib, autojunk={autojunk}: {each * 1e3:.1f} ms a pair ({few} pairs), "
            f"{each / (ours / count):.0f} times as long; "
            f"its ratio is too high by {statistics.mean(over):.3f}, at most {max(over):.3f}"
        )
    chance, same = random.Random(1), 0
    for _ in range(1000):
        left, right = ([chance.randrange(8) for _ in range(chance.randint(1, 80))] for _ in range(2))
        same += edits.change_ratio(left, right) == (len(right) - textbook(left, right)) / len(right)
    print(f"equal to the textbook's on {same} of 1000 random cases")


def lines_editor(student: str, mended: str) -> Hunks:
    old, new = student.split("\n"), mended.split("\n")
    codes = difflib.SequenceMatcher(None, old, new, False).get_opcodes()
    return [("\n".join(old[a:b]), "\n".join(new[c:d])) for tag, a, b, c, d in codes if tag != "equal"]


def words_editor(student: str, mended: str, unique: bool) -> Hunks:
    """Each edit with words around it; edits whose surroundings meet become one."""
    old: list[str] = []
    places: list[list[object]] = []
    for span in edits.diff(student, mended):
        if span.kind == "inserted":
            if places and places[-1][1] == len(old):
                places[-1][2] = span.text
            else:
                places.append([len(old), len(old), span.text])
        else:
            if span.kind == "deleted":
                places.append([len(old), len(old) + len(span.pieces), ""])
            old += span.pieces

    def grown(start: int, end: int) -> tuple[int, int]:
        around = 0 if unique else 5  # pieces: words and the blanks between them
        while True:
            low, high = max(0, start - around), min(len(old), end + around)
            find = "".join(old[low:high])
            if not unique or (find.strip() and student.count(find) == 1) or (low, high) == (0, len(old)):
                return low, high
            around += 1

    joined: list[tuple[int, int, list[list[object]]]] = []
    for place in places:
        low, high = grown(place[0], place[1])  # type: ignore[arg-type]
        if joined and low < joined[-1][1]:
            low, high = joined[-1][0], max(high, joined[-1][1])
            joined[-1] = (low, high, [*joined[-1][2], place])
        else:
            joined.append((low, high, [place]))
    hunks = []
    for low, high, inside in joined:
        new, at = "", low
        for start, end, text in inside:
            new += "".join(old[at:start]) + str(text)  # type: ignore[misc]
            at = end  # type: ignore[assignment]
        hunks.append(("".join(old[low:high]), new + "".join(old[at:high])))
    return hunks


EDITORS: dict[str, Callable[[str, str], Hunks]] = {
    "lines": lines_editor,
    "words": lambda student, mended: words_editor(student, mended, unique=False),
    "unique": lambda student, mended: words_editor(student, mended, unique=True),
}


def as_reply(hunks: Hunks) -> str:
    return "\n".join(
        f"<find-{FENCE}>\n{find}\n</find-{FENCE}>\n<replace-{FENCE}>\n{new}\n</replace-{FENCE}>" for find, new in hunks
    )


def replies(path: Path, count: Callable[[str], int]) -> None:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    whole = []
    for row in rows:
        tail = row["wrong"].removeprefix(row["wrong_prefix"])
        if tail != row["wrong"] or not row["wrong_prefix"]:
            whole.append((row["wrong"], row["corrected_prefix"] + tail))
    sets = {"first step": [(row["wrong_prefix"], row["corrected_prefix"]) for row in rows], "whole answer": whole}
    for name, given in sets.items():
        pairs = [(student, mended) for student, mended in given if student.split() != mended.split()]
        rewrites = [count(f"<answer-{FENCE}>\n{mended}\n</answer-{FENCE}>") for _, mended in pairs]
        print(f"\n{name}: {len(pairs)} corrections of {len(rows)} rows; rewritten, {sum(rewrites)} tokens")
        for editor, write in EDITORS.items():
            reasons: Counter[str] = Counter()
            hunks_in = hunks_applied = paid = alone = 0
            for (student, mended), rewrite in zip(pairs, rewrites, strict=True):
                hunks = write(student, mended)
                reply = as_reply(hunks)
                found = prompts.read(reply, mode="edits", fence=FENCE, student=student)
                right = found.text == mended
                reasons["applied" if right else found.failure or "differs"] += 1
                hunks_in += len(hunks)
                hunks_applied += sum(bool(find) and student.count(find) == 1 for find, _ in hunks)
                alone += count(reply) if right else 0
                # A reply that fails goes back once; this editor writes the same again, and then the whole.
                paid += count(reply) if right else 2 * count(reply) + rewrite
            print(
                f"  {editor:7s} {hunks_applied / hunks_in:6.1%} of {hunks_in} hunks fit; "
                f"{reasons['applied'] / len(pairs):6.1%} of replies applied; {paid} tokens, "
                f"{sum(rewrites) / paid:.2f} times fewer, fallbacks included; {dict(reasons)}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=4000)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--difflib", type=int, default=20, help="Pairs that difflib is given.")
    parser.add_argument("--data", type=Path, help="Real corrections.")
    parser.add_argument("--tokenizer", help="Whose tokens are counted with --data; else words and signs.")
    options = parser.parse_args()
    if options.data is None:
        speed(options.pairs, options.tokens, options.difflib)
        return
    if options.tokenizer is None:
        replies(options.data, lambda text: sum(not word.isspace() for word in edits.words(text)))
        return
    from spotcli.policies.models import load_tokenizer

    tokenizer = load_tokenizer(options.tokenizer)
    replies(options.data, lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]))


if __name__ == "__main__":
    main()
