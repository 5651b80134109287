"""`spot rectify --batch` killed at every step and at random moments, in the batch formats of three providers.

    python tests/chaos_batch.py --rows 60 --kills 4 --seed 0
    python tests/chaos_batch.py --format anthropic

The same rows are corrected five times in each format: undisturbed; killed at each step (after the upload, after the
creation and before its reply, while waiting, in the middle of a download and after it); killed and interrupted at
random moments; by commands that do not wait; and with a cost limit. The provider lets rows and whole batches expire,
fails some rows, leaves some out of the results, loses a batch, rejects one, cancels one, returns results in another
order, cuts connections, creates a batch without ever telling its id, and limits the rate.

Then data.jsonl must be identical byte for byte; every row was submitted exactly as often as it was answered or reported
as not answered; every answered row was answered once; the recorded cost is the provider's bill at half the price; a
cost limit holds; and the key is in no file and no output.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.batch_servers import BatchServer, BatchStep, batch_server
from tests.chaos import KEY, PRICE_OUT, Job, tag
from tests.fake_provider import Step
from tests.wire_formats import outcomes

FORMATS = ("openai", "anthropic", "gemini")
HALF = 0.5
"""The price of a row in a batch, compared with that of an ordinary request."""
LATENCY = 0.6
"""Seconds until a batch ends."""
FINAL = ("blocked", "refused", "truncated", "empty", "reasoning")
"""Outcomes that are not asked for again."""
MONEY = ("-s", "rectify.price_in=0", "-s", f"rectify.price_out={PRICE_OUT}")
OPTIONS = ("--batch", "-s", "rectify.batch_poll=0.2", "--attempts", "2", *MONEY)
AT_ONCE = 120
"""Seconds within which a command has to end."""


def steps(number: int, wire: str, chance: random.Random) -> list[Step]:
    """A failed row or a wrong correction sometimes, then the final answer, which repeats."""
    first, total = 10 + number, 15 + number
    right = f"10 + {number} = {first}\n{first} + 5 = {total}\nThe answer is \\boxed{{{total}}}."
    usage = {"prompt_tokens": 400, "completion_tokens": chance.randint(50, 250)}
    good: Step = {"text": f"<answer-{{fence}}>\n{right}\n</answer-{{fence}}>", "usage": usage}
    wrong = good | {"text": f"<answer-{{fence}}>\n{right.replace(str(total), '7')}\n</answer-{{fence}}>"}
    known = outcomes(wire)
    finals = [good | {"outcome": outcome} for outcome in FINAL if outcome in known]
    final = good if chance.random() < 0.85 else chance.choice(finals)
    early: list[Step] = chance.choices([wrong, {"status": 500}], k=chance.choices([0, 1], [75, 25])[0])
    return [*early, final]


class BatchJob(Job):
    """One folder, one server of a batch API, and the command that is killed and resumed."""

    provider: BatchServer

    def __init__(
        self,
        folder: Path,
        answers: dict[str, list[Step]],
        options: tuple[str, ...],
        *,
        wire: str,
        batches: list[BatchStep] | None = None,
    ) -> None:
        super().__init__(folder, answers, len(answers), *OPTIONS, *options, wire=wire)
        scripts = {name: list(script) for name, script in answers.items()}
        self.provider = batch_server(wire, scripts, key=KEY, batches=batches, later={"latency": LATENCY})
        self.wire = wire

    def end(self, process: subprocess.Popen[str]) -> int:
        """The exit code of a command."""
        self.output += process.communicate(timeout=AT_ONCE)[0]
        return process.returncode

    def kill_at(self, kind: str, count: int = 1) -> bool:
        """Kill the command at its ``count``-th call of a kind; False if it ended before."""
        process, left = self.start(), count

        def hook(called: str) -> None:
            nonlocal left
            left -= called == kind
            if left == 0:
                process.kill()

        self.provider.hook = hook
        code = self.end(process)
        self.provider.hook = lambda called: None
        assert code in (-9, 0), (kind, code, self.output[-2000:])
        return code == -9

    def stop_after_call(self, seconds: float, how: signal.Signals) -> bool:
        """Stop the command some seconds after its first call; False if it ended before."""
        process, calls = self.start(), len(self.provider.calls)
        while process.poll() is None and len(self.provider.calls) == calls:
            time.sleep(0.01)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(how)
        code = self.end(process)
        assert code in (0, 3, -how), (how, code, self.output[-2000:])
        return code != 0

    def counts(self) -> dict[str, Any]:
        counts: dict[str, Any] = json.loads((self.folder / "data.meta.json").read_text())["counts"]
        return counts

    def bill(self) -> float:
        """US dollars that the provider charges; ordinary requests cost twice as much as rows of batches."""
        return self.provider.billed_tokens * PRICE_OUT / 1e6 * HALF

    def check(self, calm: BatchJob) -> str:
        """All guarantees, compared with the undisturbed job; the figures."""
        server = self.provider
        assert not server.requests, "ordinary requests were sent"
        assert (self.folder / "data.jsonl").read_bytes() == (calm.folder / "data.jsonl").read_bytes()
        assert self.counts()["reasons"] == calm.counts()["reasons"]
        twice = server.submissions() - server.answered() - server.unanswered
        assert not twice, f"submitted again although answered or open: {twice}"
        assert server.answered() == calm.provider.answered(), server.answered() - calm.provider.answered()
        assert abs(self.counts()["cost"] - self.bill()) < 1e-9, (self.counts()["cost"], self.bill())
        again = sum(server.submissions().values()) - sum(server.answered().values())
        return (
            f"{len(server.batches)} batches, {len(server.submitted)} rows submitted, {again} of them not answered and "
            f"asked again, none twice; cost ${self.counts()['cost']:.4f}, bill ${self.bill():.4f}"
        )


def planned(wire: str) -> list[BatchStep]:
    """Everything that can become of a batch, once."""
    partly = {"error": 0.3} if wire == "gemini" else {"expire": 0.3, "error": 0.2}
    return [
        {"latency": LATENCY, "order": "shuffled", **partly},
        {"fail": "Enqueued token limit reached."},
        {"latency": LATENCY, "omit": 0.3, "empty ids": True},
        {"vanish": 1, "latency": 2 * LATENCY},
        {"latency": LATENCY, "expire": 1, "unlisted": 1.0},
    ]


def random_batch(wire: str, chance: random.Random) -> BatchStep:
    step: BatchStep = {"latency": chance.uniform(0.1, 2.0), "order": chance.choice(["", "shuffled", "reversed"])}
    kinds: list[BatchStep] = [{}, {"error": 0.3}, {"omit": 0.2}, {"vanish": 1}, {"expire": 1}, {"no results": 2}]
    kinds += [] if wire == "gemini" else [{"expire": 0.5, "error": 0.1}]
    return step | chance.choice(kinds)


def undisturbed(wire: str, folder: Path, answers: dict[str, list[Step]]) -> BatchJob:
    job = BatchJob(folder / f"{wire}-calm", answers, (), wire=wire)
    with job.provider:
        began = time.monotonic()
        job.finish(0)
        print(f"{wire}: undisturbed: {time.monotonic() - began:.1f} s, {job.check(job)}", flush=True)
    pairs = len(job.sorted_rows())
    assert pairs > len(answers) / 2, pairs
    return job


def by_step(calm: BatchJob) -> BatchJob:
    """Killed at each step, with every fate of a batch."""
    wire = calm.wire
    job = BatchJob(calm.folder.parent / f"{wire}-steps", calm.answers, (), wire=wire, batches=planned(wire))
    moments = ["create", "poll", "downloading", "downloaded", "create", "poll"]
    if wire == "openai":
        moments.insert(0, "upload")
    if wire == "gemini":  # the replies are in the operation
        moments = [moment for moment in moments if not moment.startswith("download")] + ["create"]
    with job.provider:
        killed = [moment for moment in moments if job.kill_at(moment)]
        job.provider.faults = {"create": ["dropped"], "poll": [429, 500, "reset", "half"], "download": ["half", 503]}
        job.finish(0)
    assert killed == moments, (killed, moments)
    print(f"{calm.wire}: killed at {', '.join(killed)}: {job.check(calm)}", flush=True)
    return job


def by_chance(calm: BatchJob, kills: int, chance: random.Random) -> BatchJob:
    """Killed and interrupted at random moments, with several batches at a time."""
    wire = calm.wire
    batches = [random_batch(wire, chance) for _ in range(10)]
    sizes = ("--batch-size", str(len(calm.answers) // 3))
    job = BatchJob(calm.folder.parent / f"{wire}-random", calm.answers, sizes, wire=wire, batches=batches)
    faults: list[int | str | None] = [429, 500, "reset", "dropped", "half", *[None] * 5]
    ways: Counter[str] = Counter()
    with job.provider:
        job.provider.faults = {
            kind: chance.choices(faults, k=8) for kind in ("upload", "create", "poll", "list", "download")
        }
        for _ in range(kills):
            how = signal.SIGKILL if chance.random() < 0.8 else signal.SIGINT
            # Counted from the first call: the import of the packages takes longer than all that follows.
            if not job.stop_after_call(chance.uniform(0.0, 3.0), how):
                break
            ways[how.name] += 1
        job.finish(0)
    print(f"{calm.wire}: {dict(ways)}: {job.check(calm)}", flush=True)
    return job


def cancelled(calm: BatchJob) -> BatchJob:
    """A batch that is cancelled at the provider, and commands that only submit and look once (``--batch-wait 0``)."""
    wire = calm.wire
    job = BatchJob(calm.folder.parent / f"{wire}-cancelled", calm.answers, ("--batch-wait", "0"), wire=wire)

    def cancel(called: str) -> None:
        if called == "poll":
            job.provider.hook = lambda called: None
            job.provider.cancel(next(iter(job.provider.batches.values())))

    with job.provider:
        job.provider.steps = [{"latency": AT_ONCE}]
        job.provider.hook = cancel
        job.finish(0)
    print(f"{calm.wire}: cancelled, and looked at once per start: {job.check(calm)}", flush=True)
    return job


def limited(calm: BatchJob) -> BatchJob:
    """A cost limit at half of the full bill, with a kill between creation and reply."""
    limit = calm.bill() * HALF
    options = ("--max-cost", str(limit))
    job = BatchJob(calm.folder.parent / f"{calm.wire}-limit", calm.answers, options, wire=calm.wire)
    with job.provider:
        assert job.kill_at("create")
        job.finish(4)
        first = job.bill()
        job.finish(4)
        bill = job.bill()
    assert 0 < first <= bill <= limit, (first, bill, limit)
    twice = job.provider.submissions() - job.provider.answered() - job.provider.unanswered
    assert not twice, twice
    print(f"{calm.wire}: limit ${limit:.4f}: the bill is ${bill:.4f}, {bill / limit:.0%} of it", flush=True)
    return job


def chaos(wire: str, folder: Path, options: argparse.Namespace) -> list[BatchJob]:
    """All jobs in one format."""
    chance = random.Random(options.seed)
    answers = {tag(number): steps(number, wire, chance) for number in range(options.rows)}
    calm = undisturbed(wire, folder, answers)
    return [calm, by_step(calm), by_chance(calm, options.kills, chance), cancelled(calm), limited(calm)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--kills", type=int, default=4, help="at random moments, per format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", choices=FORMATS, action="append")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="spot-chaos-") as name, ThreadPoolExecutor() as pool:
        folder = Path(name)
        # At the same time: most of it is waiting.
        running = [pool.submit(chaos, wire, folder, options) for wire in options.format or FORMATS]
        texts = [job.output for future in running for job in future.result()]
        texts += [file.read_text(errors="replace") for file in folder.rglob("*") if file.is_file()]
        assert not any(KEY in text for text in texts)
    print("the key is in no file and no output")


if __name__ == "__main__":
    main()
