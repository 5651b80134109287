"""The speed of the change ratio against difflib, and the size of replies as edits against rewrites.

    python benchmarks/edits.py --pairs 4000 --tokens 2000
    python benchmarks/edits.py --data FILE

Without ``--data``: time of the exact LCS and the filter on many long pairs, time of difflib on some pairs of each kind
(it is too slow for all), and equality with a textbook dynamic program on 1,000 random cases. Tokens are drawn by
Zipf's law, as in a text, and uniformly. The uniform case is the best one for difflib, which only visits equal tokens.

``--data`` is a JSONL file of wrong answers with a human correction of the first wrong step (``wrong``,
``wrong_prefix``, ``corrected_prefix``). With ``--tokenizer`` the LCS is also timed on the tokens of that model.
Scripted editors write each correction as hunks, which are read and applied like those of an oracle. As in `spot
rectify`, a reply that cannot be applied is paid for, requested again and then replaced by a rewrite. The editors:

    lines    each changed line in full
    words    the changed words, with as many words around them as make the text to find unique
    ends     long passages are given by their first and last words

``first step`` ends the answer after the corrected step, so the correction of all text is human. ``whole answer`` keeps
the later steps, so it gives the smallest size that a correction can have.
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
from spotcli.core.hunks import apply_hunks

FENCE = "a1b2c3"
GAMMA = 0.6
"""The default of ``rectify.gamma``."""

KINDS = ("one edit", "edits", "40 % new", "unrelated")
Hunks = list[tuple[str, str]]
Pair = tuple[list[int], list[int]]
Draw = Callable[[random.Random, int], list[int]]
"""Draws a number of tokens."""


def textbook(left: list[int], right: list[int]) -> int:
    """Return the length of the LCS by dynamic programming."""
    row = [0] * (len(right) + 1)
    for token in left:
        diagonal = 0
        for index, other in enumerate(right, 1):
            diagonal, row[index] = row[index], diagonal + 1 if token == other else max(row[index], row[index - 1])
    return row[-1]


def drawer(kind: str) -> Draw:
    """Return a function that draws tokens by Zipf's law, as in a text, or uniformly."""
    vocabulary = range(32_000)
    weights = list(accumulate(1 / (rank + 1) if kind == "zipf" else 1 for rank in vocabulary))
    return lambda generator, size: generator.choices(vocabulary, cum_weights=weights, k=size)


def drawn_pairs(draw: Draw, kind: str, count: int, tokens: int) -> Iterator[Pair]:
    """Yield random pairs.

    ``one edit``: one run of up to 100 tokens is replaced. ``edits``: 2 to 20 % of the tokens are replaced, in runs of
    up to 60. ``40 % new``: 40 % are replaced. ``unrelated``: all are replaced.
    """
    generator = random.Random(0)
    for _ in range(count):
        rejected = draw(generator, tokens)
        chosen = list(rejected) if kind != "unrelated" else draw(generator, tokens)
        share = {"edits": generator.uniform(0.02, 0.2), "40 % new": 0.4, "unrelated": 0.0}.get(kind, 1 / tokens)
        longest = 100 if kind == "one edit" else 60
        while share > 0:
            length = min(generator.randint(1, longest), tokens)
            start = generator.randrange(tokens - length + 1)
            chosen[start : start + length] = draw(generator, generator.randint(1, longest))
            share -= length / tokens
        yield rejected, chosen


def real_pairs(rows: list[Pair], kind: str, count: int, tokens: int) -> Iterator[Pair]:
    """Yield pairs of concatenated real answers.

    ``one edit``: one of the answers is corrected. ``edits``: all are corrected. ``unrelated``: the two sides are
    different answers.
    """
    generator = random.Random(0)
    for _ in range(count):
        picked, length = [], 0
        while length < tokens:
            picked.append(generator.choice(rows))
            length += len(picked[-1][0])
        corrected = generator.randrange(len(picked))
        rejected = [token for wrong, _ in picked for token in wrong]
        if kind == "unrelated":
            yield rejected, [token for _ in picked for token in generator.choice(rows)[0]]
        else:
            halves = [pair[kind == "edits" or index == corrected] for index, pair in enumerate(picked)]
            yield rejected, [token for half in halves for token in half]


def by_difflib(rejected: list[int], chosen: list[int], autojunk: bool) -> float:
    """Return the change ratio from difflib's matching blocks."""
    blocks = difflib.SequenceMatcher(None, rejected, chosen, autojunk).get_matching_blocks()
    return 1 - sum(block.size for block in blocks) / len(chosen)


def timed(ratio: Callable[[list[int], list[int]], float], pairs: list[Pair]) -> tuple[list[float], list[float]]:
    """Return the ratio of each pair, and the milliseconds that it took."""
    ratios, milliseconds = [], []
    for pair in pairs:
        started = time.perf_counter()
        ratios.append(ratio(*pair))
        milliseconds.append((time.perf_counter() - started) * 1e3)
    return ratios, milliseconds


def compare(name: str, pairs: list[Pair], few: int) -> None:
    """Print one line: our median on all pairs, difflib's median on the first ones, and the error of its ratio."""
    timed(edits.change_ratio, pairs[:few])
    exact, ours = timed(edits.change_ratio, pairs)
    line = f"{name:24s} ratio {statistics.mean(exact):.2f}  {statistics.median(ours):6.3f} ms"
    for autojunk in (False, True):
        theirs, milliseconds = timed(partial(by_difflib, autojunk=autojunk), pairs[:few])
        error = max(approximate - ratio for approximate, ratio in zip(theirs, exact, strict=False))
        line += (
            f"   {'autojunk' if autojunk else 'difflib'} {statistics.median(milliseconds):6.1f} ms, "
            f"{statistics.median(milliseconds) / statistics.median(ours):5.0f} times as long, error up to {error:.2f}"
        )
    print(line)


def speed(count: int, tokens: int, few: int) -> None:
    """Print the speed of the change ratio on random pairs."""
    zipf = drawer("zipf")
    pairs = list(drawn_pairs(zipf, "edits", count, tokens))
    started = time.perf_counter()
    kept = sum(edits.change_ratio(*pair) <= GAMMA for pair in pairs)
    seconds = time.perf_counter() - started
    print(f"{count} pairs with {tokens} tokens and edits: filtered in {seconds:.2f} s; gamma {GAMMA} keeps {kept}")
    for name, draw in (("zipf", zipf), ("uniform", drawer("uniform"))):
        for kind in KINDS:
            compare(f"{name}, {kind}", list(drawn_pairs(draw, kind, few, tokens)), few)
    generator, equal = random.Random(1), 0
    for index in range(1000):
        left, right = ([generator.randrange(8) for _ in range(generator.randint(1, 200))] for _ in range(2))
        if index % 2:
            right = [token for token in left if generator.random() < 0.9] or right
        equal += edits.change_ratio(left, right) == (len(right) - textbook(left, right)) / len(right)
    print(f"equal to the textbook algorithm in {equal} of 1000 random cases")


def corrections(path: Path) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return wrong answers and their corrections: up to the corrected step, and in full."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    whole = []
    for row in rows:
        tail = row["wrong"].removeprefix(row["wrong_prefix"])
        if tail != row["wrong"] or not row["wrong_prefix"]:
            whole.append((row["wrong"], row["corrected_prefix"] + tail))
    first_step = [(row["wrong_prefix"], row["corrected_prefix"]) for row in rows]
    return first_step, whole


Place = tuple[int, int, str]
"""First word of a replaced range, the word after the range, and the new text."""


def lines_editor(student: str, mended: str) -> Hunks:
    """Write each changed line in full; an added line comes with the line before it."""
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
    """Write each edit with as many words around it as make it unique; edits that then overlap become one."""
    old, places = replaced(student, mended)
    joined: list[tuple[int, int, list[Place]]] = []
    for place in places:
        low, high = unique_range(old, student, place[0], place[1])
        if joined and low < joined[-1][1]:
            low, high = joined[-1][0], max(high, joined[-1][1])
            joined[-1] = (low, high, [*joined[-1][2], place])
        else:
            joined.append((low, high, [place]))
    hunks = []
    for low, high, inside in joined:
        new, copied = "", low
        for start, end, text in inside:
            new += "".join(old[copied:start]) + text
            copied = end
        hunks.append(("".join(old[low:high]), new + "".join(old[copied:high])))
    return hunks


def replaced(student: str, mended: str) -> tuple[list[str], list[Place]]:
    """Return the words of the answer, and the ranges of them that the correction replaces."""
    old: list[str] = []
    places: list[Place] = []
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
    return old, places


def unique_range(old: list[str], student: str, start: int, end: int) -> tuple[int, int]:
    """Extend a range of words until its text occurs once in the answer and has no white space at its ends."""
    while True:
        find = "".join(old[start:end])
        if find.strip() and student.count(find.strip()) == 1 and find == find.strip():
            return start, end
        if (start, end) == (0, len(old)):
            return start, end
        start, end = max(0, start - 1), min(len(old), end + 1)


def named_by_ends(student: str, find: str) -> str:
    """Return the first and the last words of a long passage, each unique in the answer, with ``..`` between them."""
    pieces = edits.words(find)
    sizes = range(1, len(pieces))
    parts = []
    for ends in ((pieces[:size] for size in sizes), (pieces[-size:] for size in sizes)):
        unique = (text for end in ends if student.count(text := "".join(end).strip()) == 1)
        parts.append(next(unique, find))
    short = "\n..\n".join(parts)
    return short if len(short) < 0.7 * len(find) else find


Editor = Callable[[str, str], Hunks]


def by_ends(editor: Editor) -> Editor:
    """Return an editor that gives long passages by their ends."""
    return lambda student, mended: [(named_by_ends(student, find), new) for find, new in editor(student, mended)]


EDITORS: dict[str, Editor] = {
    "lines": lines_editor,
    "words": words_editor,
    "lines, ends": by_ends(lines_editor),
    "words, ends": by_ends(words_editor),
}


def as_reply(hunks: Hunks) -> str:
    """Return hunks in the format of an oracle's reply."""
    changes = "".join(f"@@\n{find}\n==\n{new}\n" for find, new in hunks)
    return f"<edits-{FENCE}>\n{changes}</edits-{FENCE}>"


def replies(path: Path, count: Callable[[str], int]) -> None:
    """Print the sizes of replies as edits against rewrites."""
    first_step, whole = corrections(path)
    for name, rows in (("first step", first_step), ("whole answer", whole)):
        pairs = [(student, mended) for student, mended in rows if student.split() != mended.split()]
        sizes = [count(mended) for _, mended in pairs]
        rewrites = [count(f"<answer-{FENCE}>\n{mended}\n</answer-{FENCE}>") for _, mended in pairs]
        new = sum(count(span.text) for pair in pairs for span in edits.diff(*pair) if span.kind == "inserted")
        print(
            f"\n{name}: {len(pairs)} corrections in {len(rows)} rows; as rewrites {sum(rewrites)} tokens "
            f"(median {statistics.median(sizes):.0f} per answer), of which {new} are new"
        )
        every: list[list[int]] = []
        for editor, write in EDITORS.items():
            reasons: Counter[str] = Counter()
            hunks_in = hunks_applied = 0
            paid: list[int] = []
            for (student, mended), rewrite in zip(pairs, rewrites, strict=True):
                hunks = write(student, mended)
                reply = as_reply(hunks)
                result = oracle_prompts.parse_reply(reply, mode="edits", fence=FENCE, student=student)
                # White space around a change stays that of the answer, as in a rewrite.
                right = (result.text or "").split() == mended.split()
                reasons["applied" if right else result.error or "differs"] += 1
                hunks_in += len(hunks)
                hunks_applied += sum(apply_hunks(student, [(find, "x")]).error is None for find, _ in hunks)
                # A failed reply is requested once more; the editor repeats it, and then the whole answer is rewritten.
                paid.append(count(reply) if right else 2 * count(reply) + rewrite)
            every.append(paid)
            show(f"{editor:12s}", rewrites, paid, sizes)
            print(
                f"                {hunks_applied / hunks_in:6.1%} of {hunks_in} hunks applied, "
                f"{reasons['applied'] / len(pairs):6.1%} of replies applied; {dict(reasons)}"
            )
        show("cheapest    ", rewrites, [min(paid) for paid in zip(*every, strict=True)], sizes)


def show(editor: str, rewrites: list[int], paid: list[int], sizes: list[int]) -> None:
    """Print how many times fewer tokens than rewrites the replies have, fallbacks included: in total, and by length."""
    parts = []
    for low, high in pairwise([0, 100, 200, 400, 800, 10**9]):
        inside = [index for index, size in enumerate(sizes) if low <= size < high]
        if inside:
            ratio = sum(rewrites[index] for index in inside) / sum(paid[index] for index in inside)
            parts.append(
                f"{low}{f' to {high - 1}' if high < 10**9 else ' and more'} tokens ({len(inside)}) {ratio:.2f}"
            )
    print(f"  {editor}  {sum(rewrites) / sum(paid):.2f} times fewer tokens;  {', '.join(parts)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=4000, help="Random pairs.")
    parser.add_argument("--tokens", type=int, default=2000, help="Tokens per answer.")
    parser.add_argument("--difflib", type=int, default=60, help="Pairs of each kind for difflib.")
    parser.add_argument("--data", type=Path, help="Real corrections.")
    parser.add_argument("--tokenizer", help="Model whose tokens are counted with --data; default: words and symbols.")
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
        token_ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return token_ids

    rows = [(ids(wrong), ids(mended)) for wrong, mended in corrections(options.data)[1]]
    for kind in ("one edit", "edits", "unrelated"):
        compare(f"real, {kind}", list(real_pairs(rows, kind, options.difflib, options.tokens)), options.difflib)
    replies(options.data, lambda text: len(ids(text)))


if __name__ == "__main__":
    main()
