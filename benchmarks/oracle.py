"""Requests per second of `spot rectify` and of the client libraries alone, in one run against one local provider.

    python benchmarks/oracle.py --requests 1000 --concurrency 64 256 --pin

The provider answers after 50 ms with about 8 kB, and all clients send the same messages. `spot rectify` also journals,
parses, grades and measures each reply. `openai aiohttp` is the openai client on aiohttp; `threads` is the openai client
with one thread per request in flight, as in the paper's reference code. ``--pin`` gives the provider one core and the
clients another.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from spotcli.core import oracle_prompts

ROOT = Path(__file__).parent.parent
FILLER = "So we go on, step by step, and check what we have. " * 150
os.environ |= {"OPENAI_API_KEY": "sk-benchmark", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "127.0.0.1"}


def response(number: int, error: int) -> str:
    return f"10 + {number} = {10 + number + error}\n{FILLER}\nThe answer is \\boxed{{{10 + number + error}}}."


def sample(number: int) -> dict[str, Any]:
    prompt = f"row-{number:05d}: what is 10 + {number}?"
    return {"id": str(number), "prompt": prompt, "answer": str(10 + number), "response": response(number, 1),
            "verdict": "wrong"}  # fmt: skip


def messages(number: int) -> Any:
    """The messages that `spot rectify` sends about a row."""
    row = sample(number)
    return oracle_prompts.build_prompt(
        row["prompt"], row["response"], row["answer"], mode="rewrite", fence="a1b2c3"
    ).messages


def rectify(url: str, count: int, concurrency: int) -> None:
    from spotcli.recipe_yaml import load
    from spotcli.stages.rectify import rectify as stage

    with tempfile.TemporaryDirectory() as name:
        lines = [json.dumps(sample(number)) + "\n" for number in range(count)]
        (Path(name) / "samples.jsonl").write_text("".join(lines))
        options = {"oracle": "gpt-4o", "base_url": url, "concurrency": concurrency}
        recipe = load(None, None, {f"rectify.{key}": value for key, value in options.items()})
        assert stage(recipe, folder=Path(name)).pairs == count


def bare_litellm(url: str, count: int, concurrency: int) -> None:
    import litellm

    async def work() -> None:
        gate = asyncio.Semaphore(concurrency)

        async def send(number: int) -> None:
            async with gate:
                await litellm.acompletion(
                    model="gpt-4o", messages=messages(number), base_url=url, num_retries=0, max_retries=0
                )

        await asyncio.gather(*(send(number) for number in range(count)))
        await litellm.close_litellm_async_clients()  # type: ignore[attr-defined, no-untyped-call]

    asyncio.run(work())


def bare_aiohttp(url: str, count: int, concurrency: int) -> None:
    import aiohttp

    async def work() -> None:
        gate = asyncio.Semaphore(concurrency)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def send(number: int) -> None:
                body = {"model": "gpt-4o", "messages": messages(number)}
                async with gate, session.post(f"{url}/chat/completions", json=body) as answer:
                    await answer.json()

            await asyncio.gather(*(send(number) for number in range(count)))

    asyncio.run(work())


def openai_aiohttp(url: str, count: int, concurrency: int) -> None:
    import openai

    async def work() -> None:
        gate = asyncio.Semaphore(concurrency)
        http = openai.DefaultAioHttpClient()
        async with openai.AsyncOpenAI(base_url=url, max_retries=0, http_client=http) as client:

            async def send(number: int) -> None:
                async with gate:
                    await client.chat.completions.create(model="gpt-4o", messages=messages(number))

            await asyncio.gather(*(send(number) for number in range(count)))

    asyncio.run(work())


def threads(url: str, count: int, concurrency: int) -> None:
    import openai

    client = openai.OpenAI(base_url=url, max_retries=0)

    def send(number: int) -> None:
        client.chat.completions.create(model="gpt-4o", messages=messages(number))

    with ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(send, range(count)))
    client.close()


CLIENTS: dict[str, Callable[[str, int, int], None]] = {
    "aiohttp": bare_aiohttp,
    "openai aiohttp": openai_aiohttp,
    "litellm": bare_litellm,
    "spot rectify": rectify,
    "threads": threads,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--rounds", type=int, default=3, help="Measurements per client; the median is shown.")
    parser.add_argument("--pin", action="store_true", help="Provider on core 1, clients on core 0.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        script = Path(name) / "script.json"
        answers = {
            f"row-{number:05d}": [
                {"text": f"<answer-{{fence}}>\n{response(number, 0)}\n</answer-{{fence}}>", "delay": 0.05}
            ]
            for number in range(options.requests)
        }
        script.write_text(json.dumps({"answers": answers}))
        command = [sys.executable, str(ROOT / "tests" / "fake_provider.py"), "--script", str(script)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as provider:
            try:
                assert provider.stdout
                url = provider.stdout.readline().strip()
                if options.pin:
                    os.sched_setaffinity(provider.pid, {1})
                    os.sched_setaffinity(0, {0})
                compare(url, options.requests, options.concurrency, options.rounds)
            finally:
                provider.terminate()


def compare(url: str, count: int, flights: list[int], rounds: int) -> None:
    for run in CLIENTS.values():
        run(url, 20, 4)  # imports and one-time setup are not measured
    for concurrency in flights:
        taken: dict[str, list[tuple[float, float]]] = {client: [] for client in CLIENTS}
        for _ in range(rounds):
            for client, run in CLIENTS.items():
                began, used = time.perf_counter(), time.process_time()
                run(url, count, concurrency)
                taken[client].append((time.perf_counter() - began, time.process_time() - used))
        cost = {client: statistics.median(used for _, used in times) / count * 1e3 for client, times in taken.items()}
        for client, times in taken.items():
            speed = count / statistics.median(seconds for seconds, _ in times)
            print(
                f"{concurrency:4d} in flight  {client:14s} {speed:7.0f} requests/s  "
                f"{cost[client]:5.2f} ms of CPU time per request, {cost[client] / cost['litellm']:.2f} of litellm's"
            )


if __name__ == "__main__":
    main()
