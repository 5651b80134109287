"""The change ratio beside difflib, and replies as edits beside rewrites on real corrections.

    python benchmarks/edits.py --pairs 4000 --tokens 2000
    python benchmarks/edits.py --data FILE

Without ``--data``: the exact LCS and the filter for many long pairs, the same by difflib for some of each kind (it
takes too long for all), and equality with a textbook dynamic programme on 1,000 random cases. Tokens are drawn by the
law of Zipf, as a text's are; and all equally often, which favours difflib most: it only looks at equal tokens, and then
there are next to none.

``--data`` names a JSONL file of wrong answers with a human's correction of the first wrong step (``wrong``,
``wrong_prefix``, ``corrected_prefix``). With ``--tokenizer`` the LCS is timed on its tokens too. Scripted editors write
each correction as hunks, which are read and applied as an oracle's are; a reply that cannot be applied is paid for,
asked for again and then rewritten, as `spot rectify` does:

    lines    each changed line whole       words    the changed words and as many around as make the text to find unique
    ends     long passages are named by their first and last words

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
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path

from spotcli.core import edits, oracle_prompts

FENCE = "a1b2c3"
GAMMA = 0.6
KINDS = ("one edit", "edits", "40 % new", "unrelated")
Hunks = list[tuple[str, str]]
Pair = tuple[list[int], list[int]]
Draw = Callable[[random.Random, int], list[int]]


def textbook(left: list[int], right: list[int]) -> int:
    row = [0] * (len(right) + 1)
    for one in left:
        before = 0
        for at, other in enumerate(right, 1):
            before, row[at] = row[at], before + 1 if one == other else max(row[at], row[at - 1])
    return row[-1]


def drawer(kind: str) -> Draw:
    """Tokens by the law of Zipf, as those of a text are, or each of the vocabulary as often as any other."""
    vocabulary = range(32_000)
    weights = list(accumulate(1 / (rank + 1) if kind == "zipf" else 1 for rank in vocabulary))
    return lambda chance, size: chance.choices(vocabulary, cum_weights=weights, k=size)


def drawn_pairs(draw: Draw, kind: str, count: int, tokens: int) -> Iterator[Pair]:
    """``one edit``: a run of up to 100 tokens replaced; ``edits``: 2 to 20 of a hundred tokens, in runs of up to 60;
    ``40 % new``: as many of them as that; ``unrelated``: all."""
    chance = random.Random(0)
    for _ in range(count):
        rejected = draw(chance, tokens)
        chosen = list(rejected) if kind != "unrelated" else draw(chance, tokens)
        share = {"edits": chance.uniform(0.02, 0.2), "40 % new": 0.4, "unrelated": 0.0}.get(kind, 1 / tokens)
        longest = 100 if kind == "one edit" else 60
        while share > 0:
            length = min(chance.randint(1, longest), tokens)
            start = chance.randrange(tokens - length + 1)
            chosen[start : start + length] = draw(chance, chance.randint(1, longest))
            share -= length / tokens
        yield rejected, chosen


def real_pairs(rows: list[Pair], kind: str, count: int, tokens: int) -> Iterator[Pair]:
    """Real answers one after the other until they are long enough; ``one edit``: one of them with its correction;
    ``edits``: each; ``unrelated``: two such rows of different answers."""
    chance = random.Random(0)
    for _ in range(count):
        picked, length = [], 0
        while length < tokens:
            picked.append(chance.choice(rows))
            length += len(picked[-1][0])
        mended = chance.randrange(len(picked))
        rejected = [token for wrong, _ in picked for token in wrong]
        if kind == "unrelated":
            yield rejected, [token for _ in picked for token in chance.choice(rows)[0]]
        else:
            halves = [pair[kind == "edits" or number == mended] for number, pair in enumerate(picked)]
            yield rejected, [token for half in halves for token in half]


def by_difflib(rejected: list[int], chosen: list[int], autojunk: bool) -> float:
    blocks = difflib.SequenceMatcher(None, rejected, chosen, autojunk).get_matching_blocks()
    return 1 - sum(block.size for block in blocks) / len(chosen)


def timed(ratio: Callable[[list[int], list[int]], float], pairs: list[Pair]) -> tuple[list[float], list[float]]:
    """The ratios, and milliseconds a pair."""
    found, taken = [], []
    for pair in pairs:
        began = time.perf_counter()
        found.append(ratio(*pair))
        taken.append((time.perf_counter() - began) * 1e3)
    return found, taken


def beside(name: str, pairs: list[Pair], few: int) -> None:
    """One line: our median of all pairs, difflib's medians of the first ones, and how far its ratio is off."""
    timed(edits.change_ratio, pairs[:few])
    exact, ours = timed(edits.change_ratio, pairs)
    line = f"{name:24s} ratio {statistics.mean(exact):.2f}  {statistics.median(ours):6.3f} ms"
    for autojunk in (False, True):
        theirs, taken = timed(partial(by_difflib, autojunk=autojunk), pairs[:few])
        off = max(one - other for one, other in zip(theirs, exact, strict=False))
        line += (
            f"   {'autojunk' if autojunk else 'difflib'} {statistics.median(taken):6.1f} ms, "
            f"{statistics.median(taken) / statistics.median(ours):5.0f} times, off by up to {off:.2f}"
        )
    print(line)


def speed(count: int, tokens: int, few: int) -> None:
    zipf = drawer("zipf")
    pairs = list(drawn_pairs(zipf, "edits", count, tokens))
    began = time.perf_counter()
    kept = sum(edits.change_ratio(*pair) <= GAMMA for pair in pairs)
    ours = time.perf_counter() - began
    print(f"{count} pairs with edits of {tokens} tokens measured and filtered in {ours:.2f} s; gamma keeps {kept}")
    for name, draw in (("zipf", zipf), ("uniform", drawer("uniform"))):
        for kind in KINDS:
            beside(f"{name}, {kind}", list(drawn_pairs(draw, kind, few, tokens)), few)
    chance, same = random.Random(1), 0
    for number in range(1000):
        left, right = ([chance.randrange(8) for _ in range(chance.randint(1, 200))] for _ in range(2))
        if number % 2:
            right = [token for token in left if chance.random() < 0.9] or right
        same += edits.change_ratio(left, right) == (len(right) - textbook(left, right)) / len(right)
    print(f"equal to the textbook's on {same} of 1000 random cases")


def corrections(path: Path) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Wrong answers and their corrections: cut behind the corrected step, and whole."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    whole = []
    for row in rows:
        tail = row["wrong"].removeprefix(row["wrong_prefix"])
        if tail != row["wrong"] or not row["wrong_prefix"]:
            whole.append((row["wrong"], row["corrected_prefix"] + tail))
    cut = [(row["wrong_prefix"], row["corrected_prefix"]) for row in rows]
    return cut, whole


def lines_editor(student: str, mended: str) -> Hunks:
    """Each changed line whole; a line that is only added stands behind the one before it."""
    old, new = student.split("\n"), mended.split("\n")
    hunks: Hunks = []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, old, new, False).get_opcodes():
        if tag == "insert" or (tag != "equal" and not "".join(old[a:b]).strip()):
            back = next((back for back in range(1, min(a, c) + 1) if old[a - back].strip()), 0)
            hunks.append(("\n".join(old[a - back : b]), "\n".join(new[c - back : d])))
        elif tag != "equal":
            hunks.append(("\n".join(old[a:b]), "\n".join(new[c:d])))
    return hunks


def words_editor(student: str, mended: str) -> Hunks:
    """Each edit with as many words around it as make it unique; edits whose surroundings meet become one."""
    old: list[str] = []
    places: list[tuple[int, int, str]] = []
    for span in edits.diff(student, mended):
        if span.kind == "inserted":
            if places and places[-1][1] == len(old):
                places[-1] = (places[-1][0], len(old), span.text)
            else:
                places.append((len(old), len(old), span.text))
        else:
            if span.kind == "deleted":
                places.append((len(old), len(old) + len(span.pieces), ""))
            old += span.pieces

    def grown(start: int, end: int) -> tuple[int, int]:
        # White space at the ends of a hunk says nothing, so a hunk reaches from a word to a word.
        while True:
            find = "".join(old[start:end])
            if find.strip() and student.count(find.strip()) == 1 and find == find.strip():
                return start, end
            if (start, end) == (0, len(old)):
                return start, end
            start, end = max(0, start - 1), min(len(old), end + 1)

    joined: list[tuple[int, int, list[tuple[int, int, str]]]] = []
    for place in places:
        low, high = grown(place[0], place[1])
        if joined and low < joined[-1][1]:
            low, high = joined[-1][0], max(high, joined[-1][1])
            joined[-1] = (low, high, [*joined[-1][2], place])
        else:
            joined.append((low, high, [place]))
    hunks = []
    for low, high, inside in joined:
        new, at = "", low
        for start, end, text in inside:
            new += "".join(old[at:start]) + text
            at = end
        hunks.append(("".join(old[low:high]), new + "".join(old[at:high])))
    return hunks


def named_by_ends(student: str, find: str) -> str:
    """The first and the last words of a long passage with the line for what is between; each stands there once."""
    pieces = edits.words(find)
    parts = []
    for taken in (lambda size: pieces[:size], lambda size: pieces[-size:]):
        fits = (text for size in range(1, len(pieces)) if student.count(text := "".join(taken(size)).strip()) == 1)
        parts.append(next(fits, find))
    short = "\n..\n".join(parts)
    return short if len(short) < 0.7 * len(find) else find


Editor = Callable[[str, str], Hunks]


def by_ends(editor: Editor) -> Editor:
    return lambda student, mended: [(named_by_ends(student, find), new) for find, new in editor(student, mended)]


EDITORS: dict[str, Editor] = {
    "lines": lines_editor,
    "words": words_editor,
    "lines, ends": by_ends(lines_editor),
    "words, ends": by_ends(words_editor),
}


def as_reply(hunks: Hunks) -> str:
    changes = "".join(f"@@\n{find}\n==\n{new}\n" for find, new in hunks)
    return f"<edits-{FENCE}>\n{changes}</edits-{FENCE}>"


def replies(path: Path, count: Callable[[str], int]) -> None:
    cut, whole = corrections(path)
    sets = {"first step": cut, "whole answer": whole}
    for name, given in sets.items():
        pairs = [(student, mended) for student, mended in given if student.split() != mended.split()]
        sizes = [count(mended) for _, mended in pairs]
        rewrites = [count(f"<answer-{FENCE}>\n{mended}\n</answer-{FENCE}>") for _, mended in pairs]
        new = sum(count(span.text) for pair in pairs for span in edits.diff(*pair) if span.kind == "inserted")
        print(
            f"\n{name}: {len(pairs)} corrections of {len(given)} rows; rewritten, {sum(rewrites)} tokens "
            f"(median {statistics.median(sizes):.0f} an answer); {new} of them are new"
        )
        every: list[list[int]] = []
        for editor, write in EDITORS.items():
            reasons: Counter[str] = Counter()
            hunks_in = hunks_applied = 0
            paid: list[int] = []
            for (student, mended), rewrite in zip(pairs, rewrites, strict=True):
                hunks = write(student, mended)
                reply = as_reply(hunks)
                found = oracle_prompts.parse_reply(reply, mode="edits", fence=FENCE, student=student)
                # White space around a change stays the student's, as it does in a rewrite.
                right = (found.text or "").split() == mended.split()
                reasons["applied" if right else found.error or "differs"] += 1
                hunks_in += len(hunks)
                hunks_applied += sum(
                    oracle_prompts.apply_hunks(student, [(find, "x")]).error is None for find, _ in hunks
                )
                # A reply that fails goes back once; this editor writes the same again, and then the whole.
                paid.append(count(reply) if right else 2 * count(reply) + rewrite)
            every.append(paid)
            show(f"{editor:12s}", rewrites, paid, sizes)
            print(
                f"                {hunks_applied / hunks_in:6.1%} of {hunks_in} hunks fit, "
                f"{reasons['applied'] / len(pairs):6.1%} of replies applied; {dict(reasons)}"
            )
        show("the cheapest", rewrites, [min(paid) for paid in zip(*every, strict=True)], sizes)


def show(editor: str, rewrites: list[int], paid: list[int], sizes: list[int]) -> None:
    """How many times fewer tokens than a rewrite, fallbacks included: of all, and by the answer's length."""
    parts = []
    for low, high in pairwise([0, 100, 200, 400, 800, 10**9]):
        inside = [at for at, size in enumerate(sizes) if low <= size < high]
        if inside:
            ratio = sum(rewrites[at] for at in inside) / sum(paid[at] for at in inside)
            parts.append(
                f"{low}{f' to {high - 1}' if high < 10**9 else ' and more'} tokens ({len(inside)}) {ratio:.2f}"
            )
    print(f"  {editor}  {sum(rewrites) / sum(paid):.2f} times fewer tokens;  {', '.join(parts)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=4000)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--difflib", type=int, default=60, help="Pairs of each kind that difflib is given.")
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

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    rows = [(ids(wrong), ids(mended)) for wrong, mended in corrections(options.data)[1]]
    for kind in ("one edit", "edits", "unrelated"):
        beside(f"real, {kind}", list(real_pairs(rows, kind, options.difflib, options.tokens)), options.difflib)
    replies(options.data, lambda text: len(ids(text)))


if __name__ == "__main__":
    main()
