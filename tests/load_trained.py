"""A model folder of `spot train` gives the same answers in vLLM as in transformers.

    python tests/load_trained.py --python PYTHON          PYTHON has vLLM

All weights of SmolLM2-135M are trained for some steps. Then both engines answer sums greedily with the trained folder,
in float32: most answers must be the same, and differ from those of the untrained model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from spotcli.problems import arithmetic

MODEL = "builtin:smollm2-135m"
PAIRS, STEPS, ASKED = 16, 6, 16
MOST = 13
"""Answers that must be the same: the engines round differently, so ties of two tokens may be decided differently."""


def pairs() -> list[dict[str, Any]]:
    """Answers in a form that no untrained model uses."""
    return [
        {
            "id": problem.id,
            "prompt": problem.prompt,
            "chosen": f"Sum total: \\boxed{{{problem.answer}}}",
            "rejected": f"Sum total: \\boxed{{{problem.answer}1}}",
        }
        for problem in arithmetic.take(1, "train", PAIRS)
    ]


def spot(folder: Path, *arguments: str) -> None:
    env = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-m", "spotcli", *arguments], cwd=folder, env=env, check=True, timeout=900)


def answers(folder: Path, name: str, model: str, engine: str, *more: str) -> list[str]:
    """A model's greedy answers to the first problems."""
    path = folder / name / "samples.jsonl"
    path.parent.mkdir()
    options = ["--model", model, "--engine", engine, "--limit", str(ASKED), "--temperature", "0"]
    options += ["--max-new-tokens", "24", "-s", "sample.dtype=float32", *more]
    spot(path.parent, "sample", "builtin:arithmetic", *options)
    rows = {row["id"]: row["response"] for row in map(json.loads, path.read_text().splitlines())}
    assert len(rows) == ASKED, len(rows)
    return [rows[name] for name in sorted(rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has vLLM")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="spot-load-") as name:
        folder = Path(name)
        (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs()))
        section = {"objective": "sft", "learning_rate": 1e-4, "batch_size": 4, "max_steps": STEPS, "warmup_steps": 0}
        (folder / "recipe.yaml").write_text(json.dumps({"model": MODEL, "train": section}))
        spot(folder, "train", "recipe.yaml")
        trained = str(folder / "checkpoint")
        before = answers(folder, "untrained", MODEL, "transformers")
        by_transformers = answers(folder, "transformers", trained, "transformers")
        engine = "{max_model_len: 512, max_num_seqs: 8, enforce_eager: true}"
        vllm = ["-s", f"sample.python={options.python}", "-s", f"sample.vllm={engine}"]
        by_vllm = answers(folder, "vllm", trained, "vllm", *vllm)
    same = sum(ours == theirs for ours, theirs in zip(by_vllm, by_transformers, strict=True))
    changed = sum(untrained != theirs for untrained, theirs in zip(before, by_transformers, strict=True))
    print(f"vLLM and transformers give the same answer to {same} of {ASKED} problems, such as {by_vllm[0]!r}")
    print(f"training changed the answers to {changed} of {ASKED}")
    assert same >= MOST, list(zip(by_vllm, by_transformers, strict=True))
    assert changed > ASKED - MOST, "the untrained model would have passed"


if __name__ == "__main__":
    main()
