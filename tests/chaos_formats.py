"""`spot rectify` with faults and interruptions, in the native formats of three providers.

    python tests/chaos_formats.py --rows 300 --kills 12 --seed 0

The same rows are corrected twice in each format: once undisturbed, once while the command is killed, interrupted,
terminated and hung up in turn. The provider limits the rate, fails, stalls, cuts connections, and blocks, refuses or
truncates replies. Then data.jsonl must be identical byte for byte; only requests in flight at an interruption may have
been sent twice; the recorded cost must be that of the replies that the provider sent and the journal has; and what the
journal does not have must be within the money that is recorded as unsettled.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.chaos import CONCURRENCY, KEY, PRICE_OUT, Job, tag
from tests.fake_provider import Step
from tests.wire_formats import outcomes

FORMATS = ("openai", "anthropic", "gemini")
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TIMEOUT = 15
"""Seconds after which a request times out; a stalled one takes longer."""
FINAL = ("filtered", "blocked", "refused", "truncated", "empty", "reasoning", "two choices")
"""Outcomes that are not asked for again."""
REPEATED = {"openai": ("error", "unknown"), "anthropic": ("error", "no usage"),
            "gemini": ("error", "unknown", "no choices", "no usage")}  # fmt: skip
"""Outcomes after which the request is sent again, by format (docs/providers.md)."""


def steps(number: int, wire: str, chance: random.Random) -> list[Step]:
    """Some faults, then the final answer, which repeats."""
    first, total = 10 + number, 15 + number
    right = f"10 + {number} = {first}\n{first} + 5 = {total}\nThe answer is \\boxed{{{total}}}."
    usage = {"prompt_tokens": 400, "completion_tokens": chance.randint(50, 250)}
    good: Step = {
        "text": f"<answer-{{fence}}>\n{right}\n</answer-{{fence}}>", "delay": chance.uniform(0, 0.1), "usage": usage
    }  # fmt: skip
    known = outcomes(wire)
    finals = [good | {"outcome": outcome} for outcome in FINAL if outcome in known]
    final = good if chance.random() < 0.85 else chance.choice(finals)
    faults: list[Step] = [
        {"status": 429, "headers": {"retry-after": "0.2"}},
        {"status": 429},
        {"status": 500, "body": f"<html>{KEY}</html>"},
        {"delay": 3 * TIMEOUT, "status": 504},
        {"reset": True},
        {"half": True},
        {"garbage": True},
        {"garbage": "{}"},
        *(good | {"outcome": outcome} for outcome in REPEATED[wire]),
    ]
    return [*chance.choices(faults, k=chance.choices([0, 1, 2], [85, 12, 3])[0]), final]


def summary_of(job: Job) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((job.folder / "data.meta.json").read_text())["counts"]
    return summary


def check_money(job: Job, lost: int) -> None:
    """The recorded cost is that of the journalled replies, which the provider sent; the rest may be unsettled."""
    lines = (job.folder / "data.replies.jsonl").read_text().splitlines()
    replies = [row for row in map(json.loads, lines) if row["kind"] == "reply"]
    kept = Counter((row["id"], row["usage"].get("completion_tokens", 0)) for row in replies)
    sent = Counter(job.provider.bills)
    assert kept <= sent, kept - sent
    summary = summary_of(job)
    cost = sum(tokens * count for (_, tokens), count in kept.items()) * PRICE_OUT / 1e6
    assert abs(summary["cost"] - cost) < 1e-9, (summary["cost"], cost)
    bill = job.provider.billed_tokens * PRICE_OUT / 1e6
    assert cost <= bill <= cost + summary["unsettled"] + 1e-9, (cost, bill, summary["unsettled"])
    print(f"  cost ${cost:.4f}, bill ${bill:.4f}, unsettled ${summary['unsettled']:.4f}; {lost} replies lost")


def chaos(wire: str, folder: Path, options: argparse.Namespace, chance: random.Random) -> None:
    answers = {tag(number): steps(number, wire, chance) for number in range(options.rows)}
    money = ("--max-cost", "1000", "-s", "rectify.price_in=0", "-s", f"rectify.price_out={PRICE_OUT}")
    settings = (*money, "-s", f"rectify.timeout={TIMEOUT}")
    calm = Job(folder / f"{wire}-calm", answers, options.rows, *settings, wire=wire)
    with calm.provider:
        began = time.monotonic()
        calm.finish(0)
        expected = len(calm.provider.requests)
        print(f"{wire}, undisturbed: {expected} requests, {time.monotonic() - began:.1f} s", flush=True)
        assert expected == sum(map(len, answers.values()))
        check_money(calm, 0)
    rough = Job(folder / f"{wire}-rough", answers, options.rows, *settings, wire=wire)
    ways: Counter[str] = Counter()
    with rough.provider:
        for number in range(options.kills):
            requests = chance.randint(0, max(1, 2 * options.rows // (options.kills + 1)))
            how = SIGNALS[number % len(SIGNALS)]
            if not rough.kill_after(requests, chance.uniform(0, 0.05), how):
                break
            ways[how.name] += 1
        rough.finish(0)
        again = len(rough.provider.requests) - expected
        check_money(rough, again)
    assert (rough.folder / "data.jsonl").read_bytes() == (calm.folder / "data.jsonl").read_bytes()
    assert summary_of(rough)["reasons"] == summary_of(calm)["reasons"]
    assert again <= ways["SIGKILL"] * CONCURRENCY, (again, ways)
    print(f"  {dict(ways)}: the same {len(rough.sorted_rows())} pairs; {again} requests were sent again", flush=True)
    texts = [calm.output, rough.output]
    texts += [file.read_text(errors="replace") for file in folder.rglob("*") if file.is_file()]
    assert not any(KEY in text for text in texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--kills", type=int, default=12, help="per format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", choices=FORMATS, action="append")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="spot-chaos-") as name:
        for wire in options.format or FORMATS:
            chaos(wire, Path(name), options, chance)
    print("the key is in no file and no output")


if __name__ == "__main__":
    main()
