"""Pairs per second and peak memory of spot, of spot without shared prefixes, and of TRL's DPOTrainer.

    nox -s bench -- train                     pairs of the demo, which it makes first
    nox -s bench -- train --data DIR          also real pairs: wrong answers whose first wrong step a person corrected
                                              (real_solutions_mrben.jsonl), and, as the worst case, pairs of answers
                                              without a common beginning (real_solutions_gsm8k_pairs.jsonl)

All sides train SmolLM2-135M with float32 weights and bfloat16 products, on the same token ids with the same number of
pairs per micro-batch, and with the same loss (spot-bce, TRL's ``bco_pair``). TRL precomputes its reference, does not
checkpoint activations, and uses its fused optimiser and huge pages, as spot does. Each measurement is one process; the
sides take turns, three times. The second of two epochs is timed: training steps with their data, without reference,
loading and saving. Peak memory is that of the whole process.

    ours        shared prefixes
    unshared    ``train.share_prefix: false``: padded pairs of similar length, the output layer in chunks
    trl         TRL's DPOTrainer with ``bco_pair`` and a precomputed reference

Measurements are rows of a file. A restart adds the missing ones; ``--minutes`` limits the time.
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
from spotcli.appender import Appender
from spotcli.core.forward.encoding import EncodedPair, Encoder
from spotcli.policies import chat_template, models
from spotcli.records import Pair

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
    """The wrong answer, and the same answer with its first wrong step corrected by a person."""
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
    """Write ``number`` random pairs of a set to folder/data.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    if name == "demo":
        rows = list(demo_pairs(folder.parent / "demo-pairs"))
    else:
        assert data is not None
        path = data / str(SETS[name])
        rows = list(mrben_pairs(path) if name == "mrben" else gsm8k_pairs(path))
    jsonl.write_rows(folder / "data.jsonl", random.Random(SEED).sample(rows, number))


# --- one measurement, in its own process -----------------------------------------------------------------------------


def measure(side: str, folder: Path, micro: int) -> dict[str, Any]:
    if side == "peak":
        return matmul_peak()
    work = Path(tempfile.mkdtemp(dir=folder))
    try:
        measured = trl(folder, work, micro) if side == "trl" else ours(folder, work, micro, share=side == "ours")
    finally:
        shutil.rmtree(work)
    return measured | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def encoded(path: Path) -> list[EncodedPair]:
    name = recipe_yaml.load(RECIPE).model or ""
    tokenizer = models.load_tokenizer(name)
    encoder = Encoder(
        tokenizer=tokenizer,
        render=lambda pair: chat_template.render(tokenizer, pair.messages),
        follows=lambda pair, answer: chat_template.follows(tokenizer, pair.messages, answer),
        end_ids=[tokenizer.eos_token_id],
        stop_ids=[tokenizer.eos_token_id],
        max_length=8192,
    )
    return encoder.encode(jsonl.read(path, Pair)).pairs


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
    batches = [pack([pairs[index] for index in turn[0].members], share=share) for turn in plan]
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
    from trl import DPOConfig, DPOTrainer  # type: ignore[attr-defined]  # exported lazily

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
    """The highest rate of one matrix product on this machine, by data type, in GFLOP/s; its operands fit the cache."""
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


# --- all measurements -------------------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> None:
    folder: Path = options.folder
    sets = [name for name in options.sets if name == "demo" or options.data]
    for name in sets:
        if not (folder / name / "data.jsonl").exists():
            make_pairs(name, options.data, folder / name, options.pairs)
    began = time.monotonic()
    with Appender(folder / "measured.jsonl") as file:
        measured = {(row["set"], row["side"], row["repeat"]) for row in file.rows()}
        for repeat in range(options.repeats):
            for name in sets:
                for side in ("peak", *options.sides):
                    if (name, side, repeat) in measured:
                        continue
                    if options.minutes and time.monotonic() - began > 60 * options.minutes:
                        print("time limit reached; run the same command again for the missing measurements")
                        return
                    command = [sys.executable, __file__, "--measure", side, "--micro", str(options.micro)]
                    command += ["--folder", str(folder / name)]
                    env = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(options.threads)}
                    result = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True, text=True)
                    row = {"set": name, "side": side, "repeat": repeat, **json.loads(result.stdout.splitlines()[-1])}
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
        measured = by_side.get(side)
        if not measured:
            continue
        rates = sorted(row["pairs"] / row["seconds"] for row in measured)
        speed[side] = statistics.median(rates)
        memory = statistics.median(row["peak_mb"] for row in measured)
        text = f"{side:10}{speed[side]:>9.3f}{f'{rates[0]:.3f}-{rates[-1]:.3f}':>16}{memory:>9.0f}"
        if "tokens" in measured[0]:
            first = measured[0]
            done = flops(first["tokens"], first["scored"]) * speed[side] / first["pairs"] / 1e9
            text += f"{first['tokens']:>8}{first['scored']:>8}{done / peak['bfloat16']:>18.1%}"
        print(text)
    if "trl" in speed:
        ratios = {side: statistics.median(row["peak_mb"] for row in by_side[side]) for side in ("ours", "trl")}
        print(f"ours / trl: {speed['ours'] / speed['trl']:.2f} times the pairs, "
              f"{ratios['ours'] / ratios['trl']:.2f} of the memory")  # fmt: skip
    if "unshared" in speed:
        shared, unshared = by_side["ours"][0], by_side["unshared"][0]
        bound = shared["whole_tokens"] / shared["tokens"]
        work = flops(unshared["tokens"], unshared["scored"]) / flops(shared["tokens"], shared["scored"])
        print(f"ours / unshared: {speed['ours'] / speed['unshared']:.2f}; expected from tokens {bound:.2f} "
              f"(without padding), from operations of the matrix products {work:.2f}")  # fmt: skip


BODY, HEAD = 106_203_456, 28_311_552
"""Parameters of SmolLM2-135M in the linear layers, and in the output layer."""


def flops(tokens: int, scored: int) -> float:
    """Operations of the products with weights, forward and backward, without recomputation."""
    return 6.0 * (BODY * tokens + HEAD * scored)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the real pairs")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--micro", type=int, default=16, help="pairs per micro-batch, which is one training step")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float, help="start no measurement after this time")
    parser.add_argument("--folder", type=Path, default=Path("bench-train"), help="folder for pairs and measurements")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.folder, options.micro)))
    else:
        run(options)


if __name__ == "__main__":
    main()
