"""`spot rectify` with random faults and kills, from a seed, and the guarantees that must hold.

    python tests/chaos.py --rows 2000 --kills 50 --seed 0

The same rows are corrected twice, through litellm over HTTP to a scripted provider: once undisturbed, once with
repeated ``kill -9``. Then data.jsonl must be identical byte for byte, only requests in flight at a kill may have been
sent twice, and the key must be in no file and no output.

A third job has a cost limit, with the same faults and kills: the provider's bill must not exceed it. There, requests
without a known end use up most of the limit. So a fourth and a fifth job have expensive replies, only faults that cost
nothing, and a limit at half of the full cost: without a kill the bill must come within one request of the limit, with
two kills within the requests in flight at them, and never exceed it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.fake_provider import FakeProvider, Step

KEY = "sk-chaos-0123456789abcdef"
CONCURRENCY = 64
MAX_TOKENS = 600
PRICE_OUT = 10.0


def tag(number: int) -> str:
    return f"row-{number:05d}"


def sample(number: int) -> dict[str, Any]:
    first, total = 10 + number, 15 + number
    response = f"10 + {number} = {first + 1}\n{first + 1} + 5 = {total + 1}\nThe answer is \\boxed{{{total + 1}}}."
    prompt = f"{tag(number)}: what is 10 + {number} + 5?"
    return {"id": tag(number), "prompt": prompt, "answer": str(total), "response": response, "verdict": "wrong"}


def steps(number: int, chance: random.Random) -> list[Step]:
    """Some faults, then the final answer, which repeats."""
    first, total = 10 + number, 15 + number
    right = f"10 + {number} = {first}\n{first} + 5 = {total}\nThe answer is \\boxed{{{total}}}."
    delay = chance.uniform(0.0, 0.1)
    usage = {"prompt_tokens": 400, "completion_tokens": chance.randint(50, 250)}
    good: Step = {"text": f"<answer-{{fence}}>\n{right}\n</answer-{{fence}}>", "delay": delay, "usage": usage}
    final = chance.choices(
        [
            good,
            good | {"text": f"<answer-ffffffffffff>\n{right}\n</answer-ffffffffffff>"},
            good | {"text": ""},
            good | {"text": "<answer-{fence}>\n10 +", "finish": "length"},
            good | {"text": "x" * 100_000},
            good | {"usage": False},
            good | {"text": f"<answer-{{fence}}>\n{'y ' * 50_000}\\boxed{{{total}}}\n</answer-{{fence}}>"},
            good | {"text": f"<answer-{{fence}}>\n{right} \x1b[2J\ud800\n</answer-{{fence}}>"},
        ],
        [88, 2, 2, 2, 1, 2, 1, 2],
    )[0]
    faults: list[Step] = [
        {"status": 429, "headers": {"retry-after": "0.2"}},
        {"status": 429},
        {"status": 500, "body": f"<html>{KEY}</html>"},
        {"status": 503, "body": {"error": {"message": f"overloaded; your key is {KEY}"}}},
        {"reset": True},
        {"half": True},
        {"garbage": True},
        {"garbage": '{"choices": null}'},
    ]
    return [*chance.choices(faults, k=chance.choices([0, 1, 2], [85, 12, 3])[0]), final]


def expensive_steps(number: int, chance: random.Random) -> list[Step]:
    """Faults that cost nothing, then a right answer that costs from half to all of its reservation."""
    tokens = chance.randint(MAX_TOKENS // 2, MAX_TOKENS)
    first, total = 10 + number, 15 + number
    right = f"10 + {number} = {first}\n{first} + 5 = {total}\nThe answer is \\boxed{{{total}}}."
    free: list[Step] = [{"status": 429, "headers": {"retry-after": "0.1"}}, {"status": 500}, {"status": 503}]
    good: Step = {
        "text": f"<answer-{{fence}}>\n{right}\n</answer-{{fence}}>",
        "delay": chance.uniform(0.0, 0.05),
        "usage": {"prompt_tokens": 400, "completion_tokens": tokens},
    }
    return [*chance.choices(free, k=chance.choices([0, 1], [95, 5])[0]), good]


def binding_limit(folder: Path, rows: int, kills: int, chance: random.Random) -> str:
    """A job whose limit is half of its full cost; returns its output."""
    answers = {tag(number): expensive_steps(number, chance) for number in range(rows)}
    cap = sum(steps[-1]["usage"]["completion_tokens"] for steps in answers.values()) * PRICE_OUT / 1e6 / 2
    worst = MAX_TOKENS * PRICE_OUT / 1e6
    money = ("--max-cost", str(cap), "-s", "rectify.price_in=0", "-s", f"rectify.price_out={PRICE_OUT}")
    job = Job(folder, answers, rows, *money)
    with job.provider:
        killed = sum(
            job.kill_after(chance.randint(1, max(1, rows // 6)), chance.uniform(0, 0.05)) for _ in range(kills)
        )
        job.finish(4)
        first = job.provider.billed_tokens * PRICE_OUT / 1e6
        # Again: earlier spending counts.
        job.finish(4)
        bill = job.provider.billed_tokens * PRICE_OUT / 1e6
    least = cap - (1 + killed * CONCURRENCY) * worst
    assert least < first <= bill <= cap, (least, first, bill, cap)
    print(f"limit ${cap:.4f}, {killed} kills: the bill is ${bill:.4f}, {bill / cap:.1%} of it")
    return job.output


class Job:
    """One folder, one provider, and the command that is killed and resumed."""

    def __init__(
        self, folder: Path, answers: dict[str, list[Step]], rows: int, *options: str, wire: str = "openai"
    ) -> None:
        self.folder = folder
        self.options = options
        self.output = ""
        self.answers = answers
        self.unkept = 0
        folder.mkdir()
        lines = [json.dumps(sample(number)) + "\n" for number in range(rows)]
        (folder / "samples.jsonl").write_text("".join(lines))
        scripts = {name: list(steps) for name, steps in answers.items()}
        self.provider = FakeProvider(scripts, key=KEY, wire=wire)
        self.oracle = "gpt-4o" if wire == "openai" else self.provider.format.model

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "spotcli", "rectify", "--oracle", self.oracle, "--base-url", self.provider.base_url,
             "--concurrency", str(CONCURRENCY), "-s", "rectify.retries=8", "-s", f"rectify.max_tokens={MAX_TOKENS}",
             *self.options],
            cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=os.environ | dict.fromkeys(self.provider.format.environment, KEY) | {"NO_PROXY": "127.0.0.1"},
        )  # fmt: skip

    def kill_after(self, requests: int, pause: float, how: signal.Signals = signal.SIGKILL) -> bool:
        """Kill or interrupt the command after this many more requests and a pause; False if it ended before."""
        process, until = self.start(), len(self.provider.requests) + requests
        while len(self.provider.requests) < until:
            if process.poll() is not None:
                self.output += process.communicate()[0]
                return False
            time.sleep(0.001)
        time.sleep(pause)
        process.send_signal(how)
        output = process.communicate(timeout=60)[0]
        self.output += output
        code = process.returncode
        assert code == (-9 if how == signal.SIGKILL else 3) or process.returncode in (0, -how), (code, output[-2000:])
        time.sleep(0.05)  # what was sent arrives
        unkept = self.unkept_replies()
        assert unkept - self.unkept <= CONCURRENCY, (unkept, self.unkept)
        self.unkept = unkept
        return True

    def unkept_replies(self) -> int:
        """Requests that got the final answer, without a reply in the journal."""
        asked = sum(max(0, self.provider.count(tag) - len(steps) + 1) for tag, steps in self.answers.items())
        journal = self.folder / "data.replies.jsonl"
        lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
        return asked - sum(b'"kind": "reply"' in line[:20] for line in lines)

    def finish(self, code: int) -> None:
        for _ in range(20):
            process = self.start()
            self.output += process.communicate()[0]
            if process.returncode != 3:
                break
        assert process.returncode == code, (process.returncode, self.output[-2000:])

    def sorted_rows(self) -> list[bytes]:
        return sorted((self.folder / "data.jsonl").read_bytes().splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    answers = {tag(number): steps(number, chance) for number in range(options.rows)}
    expected = sum(map(len, answers.values()))
    with tempfile.TemporaryDirectory(prefix="spot-chaos-") as name:
        folder = Path(name)
        calm = Job(folder / "calm", answers, options.rows)
        with calm.provider:
            began = time.monotonic()
            calm.finish(0)
            print(f"undisturbed: {len(calm.provider.requests)} requests, {time.monotonic() - began:.1f} s")
        assert len(calm.provider.requests) == expected
        assert calm.unkept_replies() == 0

        rough = Job(folder / "rough", answers, options.rows)
        with rough.provider:
            kills = 0
            for _ in range(options.kills):
                requests = chance.randint(0, max(1, 2 * options.rows // (options.kills + 1)))
                if not rough.kill_after(requests, chance.uniform(0, 0.05)):
                    break
                kills += 1
            rough.finish(0)
            again = len(rough.provider.requests) - expected
        assert (rough.folder / "data.jsonl").read_bytes() == (calm.folder / "data.jsonl").read_bytes()
        # Only the replies that the kills lost were requested again.
        assert again == rough.unkept_replies() <= kills * CONCURRENCY, (again, rough.unkept, kills)
        print(
            f"{kills} kills: the same {len(rough.sorted_rows())} pairs; {again} requests were sent again, "
            f"{again / max(kills, 1):.0f} per kill with up to {CONCURRENCY} in flight"
        )

        cap = options.rows * 100 * PRICE_OUT / 1e6
        money = ("--max-cost", str(cap), "-s", "rectify.price_in=0", "-s", f"rectify.price_out={PRICE_OUT}")
        poor = Job(folder / "poor", answers, options.rows, *money)
        with poor.provider:
            for _ in range(2):
                poor.kill_after(chance.randint(0, max(1, options.rows // (options.kills + 1))), chance.uniform(0, 0.05))
            poor.finish(4)
            bill = poor.provider.billed_tokens * PRICE_OUT / 1e6
        assert bill <= cap, (bill, cap)
        print(f"limit ${cap:.4f}: the provider's bill is ${bill:.4f}")

        texts = [calm.output, rough.output, poor.output]
        texts += [binding_limit(folder / f"expensive-{kills}", options.rows, kills, chance) for kills in (0, 2)]
        texts += [file.read_text(errors="replace") for file in folder.rglob("*") if file.is_file()]
        assert not any(KEY in text for text in texts)
        print("the key is in no file and no output")


if __name__ == "__main__":
    main()
