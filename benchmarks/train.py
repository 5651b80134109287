"""Pairs a second and peak memory beside TRL's DPOTrainer, and beside ourselves without sharing.

    nox -s bench -- train                     the demo's pairs, which it makes first
    nox -s bench -- train --data DIR          also real ones: wrong answers with a person's correction of the first
                                              wrong step (real_solutions_mrben.jsonl), and, the worst case, two answers
                                              that share no beginning (real_solutions_gsm8k_pairs.jsonl)

SmolLM2-135M, float32 weights and bfloat16 products on all sides, the same pairs as the same token ids, the same number
of pairs in a micro-batch, spot-bce on our side and the same loss (``bco_pair``) on TRL's. Each measurement is a process
of its own, so that its peak memory is its own; sides take turns, three times. TRL computes its reference beforehand,
does not checkpoint activations, and has its fused optimiser and large tensors in huge pages, as we do. Of two epochs
over the same pairs the second is timed: optimiser steps with their data, without the reference, loading or saving. Peak
memory is all of the process.

    ours        shared prefixes
    unshared    ours with ``train.share_prefix: false``: pairs of like length padded, the head in chunks
    trl         TRL's DPOTrainer, ``bco_pair``, precomputed reference

Measurements are rows of a file; a second start makes those that are missing, and ``--minutes`` stops after some.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spotcli import jsonl, recipe_yaml
from spotcli.core.forward.encoding import EncodedPair, Encoder
from spotcli.policies import chat_template, models
from spotcli.records import Contrast

RECIPE = Path(__file__).parent.parent / "recipes" / "smollm2-135m.yaml"
SIDES = ("ours", "unshared", "trl")
SETS = {"demo": None, "mrben": "real_solutions_mrben.jsonl", "gsm8k": "real_solutions_gsm8k_pairs.jsonl"}
SEED = 0


# --- pairs ------------------------------------------------------------------------------------------------------------


def demo_pairs(folder: Path) -> Iterator[dict[str, Any]]:
    from spotcli.stages.rectify import rectify
    from spotcli.stages.sample import sample

    recipe = recipe_yaml.load(RECIPE)
    sample(recipe, folder=folder)
    rectify(recipe, folder=folder)
    return jsonl.rows(folder / "data.jsonl")


def mrben_pairs(path: Path) -> Iterator[dict[str, Any]]:
    """y- whole, y+ with the first wrong step as a person corrected it and the later steps as they were."""
    for row in jsonl.rows(path):
        tail = row["wrong"].removeprefix(row["wrong_prefix"])
        chosen = row["corrected_prefix"] + tail
        if row["wrong_prefix"] and tail != row["wrong"] and chosen.split() != row["wrong"].split():
            prompt = f"{row['question']}\n{row['options']}"
            yield {"id": row["uid"], "prompt": prompt, "rejected": row["wrong"], "chosen": chosen}


def gsm8k_pairs(path: Path) -> Iterator[dict[str, Any]]:
    for row in jsonl.rows(path):
        if row["wrong"].split()[0] != row["corrected"].split()[0]:
            prompt, id = row["question"], f"gsm8k-{row['idx']}"
            yield {"id": id, "prompt": prompt, "rejected": row["wrong"], "chosen": row["corrected"]}


def make_pairs(name: str, data: Path | None, folder: Path, number: int) -> None:
    """``number`` pairs of a set, drawn at random, as folder/data.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    if name == "demo":
        rows = list(demo_pairs(folder.parent / "demo-pairs"))
    else:
        assert data is not None
        path = data / str(SETS[name])
        rows = list(mrben_pairs(path) if name == "mrben" else gsm8k_pairs(path))
    jsonl.write_rows(folder / "data.jsonl", random.Random(SEED).sample(rows, number))


# --- one measurement, in a process of its own -------------------------------------------------------------------------


def measure(side: str, folder: Path, micro: int) -> dict[str, Any]:
    if side == "peak":
        return matmul_peak()
    work = Path(tempfile.mkdtemp(dir=folder))
    try:
        found = trl(folder, work, micro) if side == "trl" else ours(folder, work, micro, share=side == "ours")
    finally:
        shutil.rmtree(work)
    return found | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def encoded(path: Path) -> list[EncodedPair]:
    name = recipe_yaml.load(RECIPE).model or ""
    tokenizer = models.load_tokenizer(name)
    encoder = Encoder(
        tokenizer=tokenizer,
        render=lambda messages: chat_template.render(tokenizer, messages),
        follows=lambda messages, answer: chat_template.follows(tokenizer, messages, answer),
        end_ids=[tokenizer.eos_token_id],
        stop_ids=[tokenizer.eos_token_id],
        max_length=8192,
    )
    return encoder.encode(jsonl.read(path, Contrast)).pairs


def ours(folder: Path, work: Path, micro: int, *, share: bool) -> dict[str, Any]:
    from spotcli.core.forward.batches import Layout, plan_epoch, sizes
    from spotcli.core.forward.packing import pack
    from spotcli.stages.train import train

    overrides = [
        f"train.per_device_train_batch_size={micro}", "train.num_train_epochs=2", "train.dtype=bfloat16",
        "train.save_strategy='no'", f"train.share_prefix={'auto' if share else 'false'}", "train.data=../data.jsonl",
    ]  # fmt: skip
    trained = train(recipe_yaml.load(RECIPE, overrides), folder=work)
    assert trained.shares_prefix == share
    rows = list(jsonl.rows(work / "checkpoint" / "metrics.jsonl"))
    timed = [row for row in rows if row["epoch"] > 1]
    pairs = encoded(folder / "data.jsonl")
    layout = Layout(micro, 1, padded=not share)
    plan = plan_epoch(sizes(pairs, share=share), layout=layout, seed=SEED, epoch=1)
    batches = [pack([pairs[at] for at in turn[0].members], share=share) for turn in plan]
    return {
        "pairs": sum(row["pairs"] for row in timed),
        "seconds": sum(row["seconds"] for row in timed),
        "tokens": sum(batch.ids_RL.numel() for batch in batches),
        "scored": sum(len(batch.rows_N) for batch in batches),
        "whole_tokens": trained.tokens,
    }


def trl(folder: Path, work: Path, micro: int) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    seconds: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *given: Any, **more: Any) -> None:
            self.started = time.monotonic()

        def on_step_end(self, *given: Any, **more: Any) -> None:
            seconds.append(time.monotonic() - self.started)

    class Tokenized(DPOTrainer):  # the same token ids on both sides
        def _prepare_dataset(self, dataset: Any, *others: Any) -> Any:
            return dataset

    recipe = recipe_yaml.load(RECIPE)
    pairs = encoded(folder / "data.jsonl")
    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
    data = Dataset.from_list([{name: list(getattr(pair, name)) for name in columns} for pair in pairs])
    arguments = DPOConfig(
        str(work), loss_type=["bco_pair"], beta=recipe.train.beta, precompute_ref_log_probs=True, max_length=None,
        bf16=True, use_cpu=not torch.cuda.is_available(), gradient_checkpointing=False, optim="adamw_torch_fused",
        learning_rate=1e-5, per_device_train_batch_size=micro, num_train_epochs=2, save_strategy="no",
        report_to="none", disable_tqdm=True, logging_steps=1, dataloader_pin_memory=False, seed=SEED,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(models.resolve(recipe.model or ""), dtype=torch.float32)
    trainer = Tokenized(
        model, args=arguments, train_dataset=data, processing_class=models.load_tokenizer(recipe.model or ""),
        callbacks=[Clock()],
    )  # fmt: skip
    trainer.train()
    return {"pairs": len(pairs), "seconds": sum(seconds[len(seconds) // 2 :])}


def matmul_peak() -> dict[str, Any]:
    """The most that one matrix product does here, in GFLOP/s: operands that fit the cache, twice the second."""
    import torch

    best: dict[str, float] = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = (torch.randn(1536, 1536).to(dtype) for _ in range(2))
        torch.mm(left, right)
        for _ in range(5):
            started, count = time.perf_counter(), 0
            while time.perf_counter() - started < 0.5:
                torch.mm(left, right)
                count += 1
            rate = 2 * 1536**3 * count / (time.perf_counter() - started) / 1e9
            best[str(dtype).removeprefix("torch.")] = max(best.get(str(dtype).removeprefix("torch."), 0.0), rate)
    return best


# --- all of them ------------------------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> None:
    folder: Path = options.folder
    sets = [name for name in options.sets if name == "demo" or options.data]
    for name in sets:
        if not (folder / name / "data.jsonl").exists():
            make_pairs(name, options.data, folder / name, options.pairs)
    began = time.monotonic()
    with jsonl.Appender(folder / "measured.jsonl") as file:
        have = {(row["set"], row["side"], row["repeat"]) for row in file.rows()}
        for repeat in range(options.repeats):
            for name in sets:
                for side in ("peak", *options.sides):
                    if (name, side, repeat) in have:
                        continue
                    if options.minutes and time.monotonic() - began > 60 * options.minutes:
                        print("not all is measured; the same command goes on")
                        return
                    command = [sys.executable, __file__, "--measure", side, "--micro", str(options.micro)]
                    command += ["--folder", str(folder / name)]
                    env = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(options.threads)}
                    said = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True, text=True)
                    row = {"set": name, "side": side, "repeat": repeat, **json.loads(said.stdout.splitlines()[-1])}
                    file.append([row])
                    print(json.dumps(row), file=sys.stderr, flush=True)
        for name in sets:
            table(name, [row for row in file.rows() if row["set"] == name])


def table(name: str, rows: list[dict[str, Any]]) -> None:
    by_side: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_side[row["side"]].append(row)
    peak = {kind: statistics.median(row[kind] for row in by_side["peak"]) for kind in ("float32", "bfloat16")}
    print(f"\n{name}; matmul peak {peak['bfloat16']:.0f} GFLOP/s in bfloat16, {peak['float32']:.0f} in float32")
    print(f"{'':10}{'pairs/s':>9}{'(range)':>16}{'peak MB':>9}{'tokens':>8}{'scored':>8}{'of the bf16 peak':>18}")
    speed = {}
    for side in SIDES:
        mine = by_side.get(side)
        if not mine:
            continue
        rates = sorted(row["pairs"] / row["seconds"] for row in mine)
        speed[side] = statistics.median(rates)
        memory = statistics.median(row["peak_mb"] for row in mine)
        text = f"{side:10}{speed[side]:>9.3f}{f'{rates[0]:.3f}-{rates[-1]:.3f}':>16}{memory:>9.0f}"
        if "tokens" in mine[0]:
            one = mine[0]
            done = flops(one["tokens"], one["scored"]) * speed[side] / one["pairs"] / 1e9
            text += f"{one['tokens']:>8}{one['scored']:>8}{done / peak['bfloat16']:>18.1%}"
        print(text)
    if "trl" in speed:
        ratios = {one: statistics.median(row["peak_mb"] for row in by_side[one]) for one in ("ours", "trl")}
        print(f"ours / trl: {speed['ours'] / speed['trl']:.2f} times the pairs, "
              f"{ratios['ours'] / ratios['trl']:.2f} of the memory")  # fmt: skip
    if "unshared" in speed:
        one, other = by_side["ours"][0], by_side["unshared"][0]
        bound = one["whole_tokens"] / one["tokens"]
        work = flops(other["tokens"], other["scored"]) / flops(one["tokens"], one["scored"])
        print(f"ours / unshared: {speed['ours'] / speed['unshared']:.2f}; token bound {bound:.2f} "
              f"(padding left out), operations of the matrix products {work:.2f}")  # fmt: skip


BODY, HEAD = 106_203_456, 28_311_552
"""Parameters of SmolLM2-135M in its layers' products, and in its head."""


def flops(tokens: int, scored: int) -> float:
    """Of the products with weights, forward and backward, nothing counted twice that is computed again."""
    return 6.0 * (BODY * tokens + HEAD * scored)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with the real pairs")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--micro", type=int, default=16, help="pairs of a micro-batch, which is a step")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float, help="start no measurement after this long")
    parser.add_argument("--folder", type=Path, default=Path("bench-train"), help="pairs and measurements")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.folder, options.micro)))
    else:
        run(options)


if __name__ == "__main__":
    main()
