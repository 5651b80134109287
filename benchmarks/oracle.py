"""Requests a second of `spot rectify` beside the bare client libraries, in one run against one local provider.

    python benchmarks/oracle.py --requests 1000 --concurrency 64 256

The provider answers after 50 ms with about 8 kB. `spot rectify` also journals, reads, grades and measures each reply.
`threads` is a thread for each request in flight with the openai client, as the paper's reference code does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FILLER = "So we go on, step by step, and check what we have. " * 150
os.environ |= {"OPENAI_API_KEY": "sk-benchmark", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "127.0.0.1"}


def response(number: int, off: int) -> str:
    return f"10 + {number} = {10 + number + off}\n{FILLER}\nThe answer is \\boxed{{{10 + number + off}}}."


def sample(number: int) -> dict[str, Any]:
    prompt = f"row-{number:05d}: what is 10 + {number}?"
    return {"id": str(number), "prompt": prompt, "answer": str(10 + number), "response": response(number, 1),
            "verdict": "wrong"}  # fmt: skip


def messages(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"row-{number:05d}: {response(number, 1)}"}]


def rectify(url: str, count: int, concurrency: int) -> None:
    from spotcli.recipe import load
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

        async def one(number: int) -> None:
            async with gate:
                await litellm.acompletion(
                    model="gpt-4o", messages=messages(number), base_url=url, num_retries=0, max_retries=0
                )

        await asyncio.gather(*(one(number) for number in range(count)))
        await litellm.close_litellm_async_clients()

    asyncio.run(work())


def bare_aiohttp(url: str, count: int, concurrency: int) -> None:
    import aiohttp

    async def work() -> None:
        gate = asyncio.Semaphore(concurrency)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def one(number: int) -> None:
                body = {"model": "gpt-4o", "messages": messages(number)}
                async with gate, session.post(f"{url}/chat/completions", json=body) as answer:
                    await answer.json()

            await asyncio.gather(*(one(number) for number in range(count)))

    asyncio.run(work())


def threads(url: str, count: int, concurrency: int) -> None:
    import openai

    client = openai.OpenAI(base_url=url, max_retries=0)

    def one(number: int) -> None:
        client.chat.completions.create(model="gpt-4o", messages=messages(number))  # type: ignore[arg-type]

    with ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(one, range(count)))
    client.close()


CLIENTS: dict[str, Callable[[str, int, int], None]] = {
    "aiohttp": bare_aiohttp,
    "litellm": bare_litellm,
    "spot rectify": rectify,
    "threads": threads,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[64, 256])
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
            assert provider.stdout
            url = provider.stdout.readline().strip()
            import litellm  # noqa: F401 - not part of what is timed
            import openai  # noqa: F401

            for concurrency in options.concurrency:
                for client, ask in CLIENTS.items():
                    began, used = time.perf_counter(), time.process_time()
                    ask(url, options.requests, concurrency)
                    seconds, used = time.perf_counter() - began, time.process_time() - used
                    print(
                        f"{concurrency:4d} in flight  {client:13s} {options.requests / seconds:7.0f} requests/s  "
                        f"{used / options.requests * 1000:5.2f} ms of processor a request"
                    )
            provider.terminate()


if __name__ == "__main__":
    main()
