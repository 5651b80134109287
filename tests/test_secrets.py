"""Keys through every stage: they reach the provider, and no file, no message and no command line of a process."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.fake_provider import FakeProvider

HIDDEN = "hidden-4711"
"""A part of every secret."""
SECRETS = f"""
    extra_headers: {{Authorization: Bearer {HIDDEN}-a, X-Custom: {HIDDEN}-b}}
    aws_secret_access_key: {HIDDEN}-c
"""
ENVIRONMENT = {
    "OPENAI_API_KEY": f"sk-{HIDDEN}-environment",
    "WANDB_API_KEY": f"{HIDDEN}-wandb",
    "HF_TOKEN": f"hf_{HIDDEN}",
    "HTTPS_PROXY": f"http://user:{HIDDEN}@127.0.0.1:9",
    "NO_PROXY": "127.0.0.1",
}
PRIVATE = ("*.meta.json", "*.replies.jsonl", "*.summary.json", "recipe.yaml", "run.json", "spot-train.json")


def wrong(number: int) -> str:
    return f"10 + {number} = {11 + number}\n{11 + number} + 5 = {16 + number}\nThe answer is \\boxed{{{16 + number}}}."


def right(number: int) -> dict[str, str]:
    return {
        f"= {11 + number}\n{11 + number} +": f"= {10 + number}\n{10 + number} +",
        str(16 + number): str(15 + number),
    }


def command_lines(process: subprocess.Popen[bytes]) -> set[str]:
    """The command lines of all processes while one runs."""
    seen = set()
    while process.poll() is None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                seen.add(path.read_bytes().decode("utf-8", "replace").replace("\0", " "))
            except OSError:
                continue
        threading.Event().wait(0.1)
    return seen


def test_no_secret_leaves_a_run(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "problems.jsonl").write_text(
        "".join(f'{{"prompt": "row-{n}: what is 10 + {n} + 5?", "answer": "{15 + n}"}}\n' for n in range(4))
    )
    script: dict[str, list[dict[str, Any]]] = {
        f"row-{number}:": [{"text": wrong(number)}, {"correct": right(number)}] for number in range(4)
    }
    work = tmp_path / "runs"
    with (
        FakeProvider(script) as provider,
        (tmp_path / "stdout").open("wb") as out,
        (tmp_path / "stderr").open("wb") as err,
    ):
        (tmp_path / "r.yaml").write_text(
            f"model: {tiny_model}\n"
            f"sample:\n  problems: {tmp_path}/problems.jsonl\n  engine: api\n  base_url: {provider.base_url}\n"
            f"  params:{SECRETS}"
            f"rectify:\n  oracle: openai/gpt-4o\n  base_url: {provider.base_url}\n  params:{SECRETS}"
            "train: {batch_size: 2, num_train_epochs: 1, dtype: float32}\n"
            "eval: {tasks: [arithmetic], limit: 2, max_new_tokens: 2, drift: false}\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "spotcli", "run", str(tmp_path / "r.yaml"), "-o", str(work)],
            env=os.environ | ENVIRONMENT,
            stdout=out,
            stderr=err,
        )
        lines = command_lines(process)
        sent = provider.requests
    assert process.returncode == 0, (tmp_path / "stderr").read_text()
    assert len(sent) == 8
    assert [line for line in lines if HIDDEN in line] == []
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "r.yaml"]
    assert {"stdout", "stderr", "samples.meta.json", "data.replies.jsonl", "spot-train.json", "metrics.jsonl"} <= {
        path.name for path in written
    }
    assert [path for path in written if HIDDEN.encode() in path.read_bytes()] == []
    private = [path for pattern in PRIVATE for path in work.rglob(pattern)]
    assert len(private) >= 8
    assert {path: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in private if path.stat().st_mode & 0o077} == {}


@pytest.mark.parametrize(
    "override",
    [
        f'rectify.params={{extra_headers: {{Authorization: "Bearer {HIDDEN}"',
        f"rectify.parms={{api_key: {HIDDEN}}}",
        f"rectify.params=Bearer-{HIDDEN}",
        f"rectify.base_url=[http://u:{HIDDEN}@h]",
        f"rectify.concurrency=http://u:{HIDDEN}@h",
        f"sample.api_key={HIDDEN}",
        f"train.hub_token={HIDDEN}",
        f"train.hub_token={HIDDEN}: {{",
    ],
)
@pytest.mark.parametrize("way", ["override", "recipe"])
def test_an_invalid_secret_is_not_shown(override: str, way: str, tmp_path: Path) -> None:
    name, _, value = override.partition("=")
    section, _, key = name.partition(".")
    (tmp_path / "r.yaml").write_text(f"model: x\n{section}:\n  {key}: {value}\n" if way == "recipe" else "model: x\n")
    (tmp_path / "data.jsonl").write_text('{"prompt": "?", "rejected": "a b", "chosen": "a c"}\n')
    extra = ["-s", override] if way == "override" else []
    done = subprocess.run(
        [sys.executable, "-m", "spotcli", "train", "r.yaml", "--dry-run", *extra],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert HIDDEN not in done.stdout + done.stderr
    assert name in done.stderr or "r.yaml:" in done.stderr
