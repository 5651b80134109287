"""Throughput compared with the bare engines, and with a million rows.

    python benchmarks/sample.py transformers              compared with `generate` in fixed batches of the same size
    python benchmarks/sample.py vllm --python PYTHON      compared with `LLM.generate`; PYTHON has vLLM
    python benchmarks/sample.py million                   scripted answers: rows per second, memory, resume

The first two use SmolLM2-135M on a mixture of sums (short answers) and open questions (long ones), so that lengths are
uneven. `transformers` decodes greedily, so that both give the same answers. Start and end of the engines are not timed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from spotcli.evaluation.tasks import neutral
from spotcli.policies import Answer, EngineFacts, Failure, Request, Sampling, answer_seed
from spotcli.problems import arithmetic
from spotcli.recipe import SampleSection
from spotcli.recipe_yaml import load

MODEL = "builtin:smollm2-135m"


def mixed(number: int) -> list[Request]:
    """Sums and open questions in random order."""
    questions = neutral.problems()[: number // 3]
    problems = [*questions, *arithmetic.take(0, "train", number - len(questions))]
    random.Random(0).shuffle(problems)
    return [Request((problem.id, 0), problem.messages, answer_seed(0, problem.id, 0)) for problem in problems]


def report(name: str, peer: str, ours: list[float], theirs: list[float], answers: int, tokens: int) -> None:
    own, other = statistics.median(ours), statistics.median(theirs)
    print(f"{'':24}{'seconds':>10}{'answers/s':>12}{'tokens/s':>12}")
    for label, seconds in ((name, own), (peer, other)):
        print(f"{label:24}{seconds:>10.1f}{answers / seconds:>12.2f}{tokens / seconds:>12.1f}")
    print(f"{name} / {peer}: {other / own:.2f} (medians of {len(ours)} interleaved repeats)")


# transformers


def transformers_main(options: argparse.Namespace) -> None:
    import torch

    from spotcli.policies.transformers import TransformersPolicy

    sampling = Sampling(options.max_new_tokens, temperature=0)
    policy = TransformersPolicy.load(MODEL, sampling, batch_size=options.batch)
    generate: Any = policy.model.generate
    requests = mixed(options.requests)
    prompts = [policy.prompter.ids(request.messages) for request in requests]
    end = next(iter(policy.prompter.ends))

    def ours() -> list[int]:
        groups = policy.answers(requests, len(requests), lambda request: False)
        tokens = {item.request.key: item.tokens for group in groups for item in group if isinstance(item, Answer)}
        return [tokens[request.key] for request in requests]

    def plain() -> list[int]:
        lengths = []
        for start in range(0, len(prompts), options.batch):
            batch = prompts[start : start + options.batch]
            width = max(map(len, batch))
            ids = torch.tensor([[end] * (width - len(prompt)) + prompt for prompt in batch])
            mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in batch])
            generated = generate(
                ids, attention_mask=mask, do_sample=False, max_new_tokens=options.max_new_tokens, pad_token_id=end
            )
            for row in generated[:, width:].tolist():
                lengths.append(row.index(end) + 1 if end in row else len(row))
        return lengths

    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(options.repeats):
        for name, run in (("plain", plain), ("ours", ours)):
            started = time.perf_counter()
            lengths = run()
            times[name].append(time.perf_counter() - started)
            print(f"{name}: {times[name][-1]:.1f} s, {sum(lengths)} tokens", file=sys.stderr)
    lengths = sorted(lengths)
    print(f"{len(requests)} answers in batches of {options.batch}, {lengths[len(lengths) // 2]} tokens in the middle, "
          f"{lengths[-1]} at most")  # fmt: skip
    report("transformers engine", "plain generate", times["ours"], times["plain"], len(requests), sum(lengths))


# vLLM

BARE = """
import json, sys, time
def main():
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt
    job = json.load(sys.stdin)
    llm = LLM(job["model"], generation_config="vllm", **job["engine"])
    params = [SamplingParams(**job["sampling"], seed=seed) for seed in job["seeds"]]
    prompts = [TokensPrompt(prompt_token_ids=ids) for ids in job["prompts"]]
    started = time.perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - started
    open(job["result"], "w").write(json.dumps([seconds, sum(len(output.outputs[0].token_ids) for output in outputs)]))
if __name__ == "__main__":
    main()
"""


def vllm_main(options: argparse.Namespace) -> None:
    from spotcli.policies.vllm import VllmPolicy

    engine = {"max_model_len": 2048, "max_num_seqs": options.batch, "enforce_eager": True}
    settings = SampleSection(engine="vllm", python=options.python, workers=1, vllm=engine)
    sampling = Sampling(options.max_new_tokens, temperature=0.7, top_p=0.8)
    requests = mixed(options.requests)
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    tokens = {"ours": 0, "bare": 0}
    with tempfile.TemporaryDirectory() as folder:
        script, result = Path(folder, "bare_engine.py"), Path(folder, "result.json")
        script.write_text(BARE)
        for _ in range(options.repeats):
            policy = VllmPolicy(MODEL, sampling, settings, log=Path(folder, "samples.jsonl"))
            config = policy._jobs[0].config
            job = {
                "model": config.model,
                "engine": config.engine,
                "sampling": config.sampling,
                "prompts": [policy.prompter.ids(request.messages) for request in requests],
                "seeds": [request.seed for request in requests],
                "result": str(result),
            }
            env = dict(policy._jobs[0].env)
            subprocess.run([options.python, "-P", str(script)], input=json.dumps(job), text=True, env=env, check=True)
            seconds, tokens["bare"] = json.loads(result.read_text())
            times["bare"].append(seconds)
            tokens["ours"] = 0
            for group in policy.answers(iter(requests), len(requests), lambda request: False):
                tokens["ours"] += sum(item.tokens for item in group if isinstance(item, Answer))
                last = time.monotonic()
            assert policy._pool
            times["ours"].append(last - policy._pool.ready_since)
            policy.close()
            print(f"bare {times['bare'][-1]:.1f} s, ours {times['ours'][-1]:.1f} s; tokens {tokens}", file=sys.stderr)
    report("vllm engine", "LLM.generate", times["ours"], times["bare"], len(requests), tokens["ours"])


# A million rows


class Scripted:
    """A policy that answers at once."""

    engine = "scripted"
    background = False
    trials_together = True

    def facts(self, first: Request) -> EngineFacts:
        return EngineFacts(prompts=None)

    def answers(
        self, requests: Iterable[Request], total: int, done: Callable[[Request], bool]
    ) -> Iterator[list[Answer | Failure]]:
        group: list[Answer | Failure] = []
        for number, request in enumerate(request for request in requests if not done(request)):
            group.append(Answer(request, f"\\boxed{{{number}}}", "stop", None, 4, 16))
            if len(group) == 512:
                yield group
                group = []
                if number % 51_200 < 512:
                    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                    print(json.dumps({"new": number, "peak_mb": round(peak), "at": time.time()}), flush=True)
        yield group

    def stop(self) -> None: ...

    def close(self) -> None: ...


def million_main(options: argparse.Namespace) -> None:
    if options.folder:
        from spotcli.stages.sample import sample

        sample(load(None, None, {"model": "scripted"}), folder=options.folder, policy=Scripted())
        return
    with tempfile.TemporaryDirectory() as folder:
        with Path(folder, "problems.jsonl").open("w") as file:
            for number in range(options.rows):
                file.write(json.dumps({"prompt": f"What is {number} + 0?", "answer": str(number)}) + "\n")
        command = [sys.executable, __file__, "million", "--rows", str(options.rows), "--folder", folder]
        samples = Path(folder, "samples.jsonl")

        def run(until: int | None) -> list[dict[str, float]]:
            started, seen = time.time(), []
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            assert process.stdout
            for line in process.stdout:
                seen.append(json.loads(line))
                seen[-1]["after"] = seen[-1]["at"] - started
                if until and seen[-1]["new"] >= until:
                    process.send_signal(signal.SIGKILL)
            process.wait()
            return seen

        first = run(options.rows // 2)
        # Line by line, because a child process starts with the peak memory of its parent.
        with samples.open("rb") as written:
            done = sum(1 for _ in written)
        second = run(None)
        rows = samples.read_bytes().splitlines()
        assert len(rows) == options.rows
        assert len({json.loads(row)["id"] for row in rows}) == options.rows
        speed = (second[-1]["new"] - second[0]["new"]) / (second[-1]["at"] - second[0]["at"])
        print(f"{options.rows} rows, {os.path.getsize(samples) >> 20} MB of answers")
        print(f"rows per second: {speed:.0f}")
        print(f"before the first answer, nothing done: {first[0]['after']:.1f} s")
        print(f"before the first answer, {done} done: {second[0]['after']:.1f} s")
        for seen in (first[0], first[-1], second[0], second[-1]):
            print(f"peak memory after {seen['new']:.0f} rows of its run: {seen['peak_mb']:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, run in (("transformers", transformers_main), ("vllm", vllm_main), ("million", million_main)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("--requests", type=int, default=96)
        command.add_argument("--batch", type=int, default=16)
        command.add_argument("--max-new-tokens", type=int, default=192)
        command.add_argument("--repeats", type=int, default=3)
        command.add_argument("--rows", type=int, default=1_000_000)
        command.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
        command.add_argument("--python", default=sys.executable, help="the interpreter that has vLLM")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
