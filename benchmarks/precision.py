"""What is left of a trained model when it is saved: gain, drift, margin and update, by number format and rounding.

    python benchmarks/precision.py run --folder precision       one to two hours on two cores; run it again to continue
    python benchmarks/precision.py report --folder precision    the tables of docs/training.md

The recipe of the demo is trained at several learning rates and seeds, on the same pairs. Each trained model has float32
weights, from which every other file is made, so all rows of a run differ in the rounding alone. All files are
evaluated with float32 arithmetic, on the same problems with the same sampling seeds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from paper import measure_drift
from paper_questions import arithmetic_questions

from spotcli import jsonl, recipe_yaml
from spotcli.appender import Appender
from spotcli.core.rounding import UpdateSums, rounded, update_sums, weight_seed
from spotcli.core.stats import mcnemar

RECIPE = Path(__file__).parent.parent / "recipes" / "smollm2-135m.yaml"

MODEL = "builtin:smollm2-135m"

RATES = (1e-5, 1e-6, 3e-5)

SEEDS = (0, 1, 2)

PROBLEMS = 160

FORMS = ("float32", "bfloat16 nearest", "bfloat16 stochastic", "bfloat16 largest first", "float16 nearest")
"""The saved files of one trained model."""


@dataclass(frozen=True)
class Run:
    """One training run."""

    rate: float
    seed: int
    forward: str = "stochastic"
    """What the products of the forward pass see: float32 weights as they are (``float32``), or their bfloat16 numbers
    by rounding to ``nearest`` or ``stochastic``."""

    @property
    def key(self) -> str:
        return f"{self.forward}-lr{self.rate:g}-s{self.seed}"

    @property
    def forms(self) -> tuple[str, ...]:
        """The saved files that are measured: the first three of ``FORMS`` for every seed, the others for one."""
        return FORMS if self.seed == 0 else FORMS[:3]


def runs() -> list[Run]:
    """All runs, the most telling ones first."""
    plan = [Run(rate, seed) for seed in SEEDS for rate in RATES]
    return [
        *plan,
        *(Run(rate, seed, "nearest") for seed in SEEDS for rate in RATES),
        *(Run(rate, 0, "float32") for rate in RATES),
    ]


def prepare(folder: Path) -> None:
    """Make the pairs of the demo."""
    from spotcli.stages.rectify import rectify
    from spotcli.stages.sample import sample

    recipe = recipe_yaml.load(RECIPE)
    sample(recipe, folder=folder)
    rectify(recipe, folder=folder)


def train_run(folder: Path, run: Run) -> Path:
    """Train a run with float32 weights in the file; return the folder of the model."""
    from spotcli.stages.train import train

    work = folder / "work" / run.key
    work.mkdir(parents=True, exist_ok=True)
    overrides = [
        f"seed={run.seed}", f"train.learning_rate={run.rate}", "train.save_strategy='no'", "train.save_dtype=float32",
        "train.data=../../data.jsonl", f"train.dtype={'float32' if run.forward == 'float32' else 'bfloat16'}",
        f"train.rounding={'nearest' if run.forward == 'nearest' else 'stochastic'}",
    ]  # fmt: skip
    return Path(train(recipe_yaml.load(RECIPE, overrides), folder=work).checkpoint)


@lru_cache(maxsize=1)
def starting_weights() -> dict[str, Any]:
    """The weights before training, as float32."""
    from spotcli.policies import models

    return dict(models.load_model(MODEL, "float32").named_parameters())


def save_form(trained: Path, form: str, seed: int) -> tuple[Path, UpdateSums]:
    """Write one file of a trained model; return its folder and what is left of the update."""
    import torch
    from safetensors.torch import load_file, save_file

    target = trained.with_name(form.replace(" ", "-"))
    shutil.copytree(trained, target, dirs_exist_ok=True)
    dtype = getattr(torch, form.split()[0])
    start, sums, saved = starting_weights(), UpdateSums(), {}
    for name, weight in load_file(trained / "model.safetensors").items():
        before = start[name].detach()
        if form.endswith("largest first"):
            saved[name] = largest_first(before, weight, dtype)
        else:
            saved[name] = rounded(
                weight, dtype, "stochastic" if "stochastic" in form else "nearest", weight_seed(seed, name, 0)
            )
        sums += update_sums(before, weight, saved[name])
    save_file(saved, target / "model.safetensors", metadata={"format": "pt"})
    return target, sums


def largest_first(start: Any, trained: Any, dtype: Any) -> Any:
    """Round so that the whole update survives along its own direction, moving the weights with the largest part of a
    spacing first."""
    import torch

    nearest = trained.to(dtype)
    away = trained.abs() > nearest.float().abs()
    other = (nearest.view(torch.int16) + torch.where(away, 1, -1).to(torch.int16)).view(dtype)
    update = trained - start
    exact = nearest.float() == trained
    other = torch.where(exact | ~torch.isfinite(other), nearest, other)
    # The neighbour towards the start, and the one in the direction of the update.
    forward = (nearest.float() - other.float()) * update.sign() > 0
    near, far = torch.where(forward, other, nearest), torch.where(forward, nearest, other)
    spacing = (far.float() - near.float()).abs()
    fraction = torch.where(spacing > 0, (trained - near.float()).abs() / spacing, 0.0)
    needed = float((update.abs() * fraction * spacing).double().sum())
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        taken = float((update.abs() * spacing * (fraction > middle)).double().sum())
        low, high = (middle, high) if taken > needed else (low, middle)
    return torch.where(fraction > high, far, near)


def measure(folder: Path, model: str, seed: int) -> dict[str, Any]:
    """Right answers, drift and margin of one file, all with float32 arithmetic."""
    return {
        "outcomes": right_answers(model, seed),
        "drift": measure_drift(model, MODEL),
        "margin": margin(folder, model),
    }


def right_answers(model: str, seed: int) -> dict[str, int]:
    """1 for each problem that is answered rightly, else 0."""
    from spotcli.policies import Answer, Request, Sampling, answer_seed
    from spotcli.policies.transformers import TransformersPolicy

    sampling = Sampling(48, temperature=0.7, top_p=0.8)
    policy = TransformersPolicy.load(model, sampling, batch_size=160, dtype="float32")
    questions = {(question.id,): question for question in arithmetic_questions("")[:PROBLEMS]}
    requests = [
        Request(key, question.messages, answer_seed(seed, question.id, 0)) for key, question in questions.items()
    ]
    groups: Iterator[list[Any]] = policy.answers(requests, len(requests), lambda request: False)
    answers = [answer for group in groups for answer in group]
    assert all(isinstance(answer, Answer) for answer in answers)
    return {
        answer.request.key[0]: int(
            answer.finish_reason == "stop" and questions[answer.request.key].is_right(answer.response)
        )
        for answer in answers
    }


def margin(folder: Path, model: str) -> float:
    """The mean log-probability margin on the pairs that it was trained on, in nats."""
    from spotcli.core.forward import logps
    from spotcli.policies import models
    from spotcli.training.data import load_data
    from spotcli.training.starting_model import StartingModel
    from spotcli.training.survival import mean_margin

    loaded: Any = models.load_model(model, "float32")
    logps.install(loaded)
    pairs = load_data(recipe_yaml.load(RECIPE), folder / "data.jsonl", rough=False, start=StartingModel()).pairs
    return mean_margin(loaded, pairs[:32], share=False, rejected=True)


def execute(folder: Path, run: Run | None, forms: list[str]) -> list[dict[str, Any]]:
    """Train a run and measure the files that have no result yet; None is the untrained model."""
    import torch

    torch.set_num_threads(1)
    if run is None:
        return [{"run": f"start-s{seed}", "form": "", **measure(folder, MODEL, seed)} for seed in SEEDS]
    trained, rows = train_run(folder, run), []
    for form in forms:
        target, sums = save_form(trained, form, run.seed)
        rows.append({
            "run": run.key, "form": form, "surviving": sums.surviving, "cosine": sums.cosine, "sums": asdict(sums),
            "metrics": list(jsonl.rows(trained / "metrics.jsonl"))[-1], **measure(folder, str(target), run.seed),
        })  # fmt: skip
        shutil.rmtree(target)
    shutil.rmtree(trained.parent)
    return rows


def run_all(folder: Path, lanes: int) -> None:
    """Execute what has no result yet."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    prepare(folder)
    with Appender(folder / "results.jsonl") as file:
        done = {(row["run"], row["form"]) for row in file.rows()}
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(lanes, mp_context=spawn) as pool:
            jobs = [] if ("start-s0", "") in done else [pool.submit(execute, folder, None, [])]
            for run in runs():
                if forms := [form for form in run.forms if (run.key, form) not in done]:
                    jobs.append(pool.submit(execute, folder, run, forms))
            for job in as_completed(jobs):
                file.append(job.result())
                for row in job.result():
                    print(
                        row["run"],
                        row["form"],
                        f"{statistics.mean(row['outcomes'].values()):.3f}",
                        f"{row['drift']:.5f}",
                        flush=True,
                    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "report"))
    parser.add_argument("--folder", type=Path, default=Path("precision"))
    parser.add_argument("--lanes", type=int, default=2, help="processes at a time, with one thread each")
    arguments = parser.parse_args()
    if arguments.command == "run":
        run_all(arguments.folder, arguments.lanes)
    else:
        report(arguments.folder)


def report(folder: Path) -> None:
    """Print the tables of the results: means over the seeds, and problems compared with the float32 file's."""
    rows = {(row["run"], row["form"]): row for row in jsonl.rows(folder / "results.jsonl")}
    starts = [row for (run, _), row in rows.items() if run.startswith("start")]
    right = statistics.mean(value for row in starts for value in row["outcomes"].values())
    print(f"The starting policy answers {right:.1%} of {PROBLEMS} problems rightly ({len(starts)} sampling seeds).\n")
    print("| forward | rate | seeds | file | update | cosine | margin | right | lost / won | p | drift |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for forward in ("stochastic", "nearest", "float32"):
        for rate in sorted(RATES):
            for form in FORMS:
                keys = [run.key for run in runs() if (run.forward, run.rate) == (forward, rate)]
                done = [key for key in keys if (key, form) in rows and (key, "float32") in rows]
                if done:
                    print(_line(rows, done, form, f"{forward} | {rate:g}", starts[0]["margin"]))


def _line(rows: dict[tuple[str, str], dict[str, Any]], keys: list[str], form: str, name: str, start: float) -> str:
    """One line of the table: the mean over some runs of one rate and one form."""
    own, exact = [rows[key, form] for key in keys], [rows[key, "float32"] for key in keys]
    pairs = [
        (one["outcomes"][problem], other["outcomes"][problem])
        for one, other in zip(own, exact, strict=True)
        for problem in one["outcomes"]
    ]
    lost, won = pairs.count((0, 1)), pairs.count((1, 0))
    share = statistics.mean(
        (one["margin"] - start) / (other["margin"] - start) for one, other in zip(own, exact, strict=True)
    )
    p = "" if form == "float32" else f"{mcnemar(lost, won):.2g}"
    cells = [
        name, len(keys), form, f"{statistics.mean(row['surviving'] for row in own):.1%}",
        f"{statistics.mean(row['cosine'] for row in own):.2f}", f"{share:.1%}",
        f"{statistics.mean(one for one, _ in pairs):.1%}", f"{lost} / {won}", p,
        f"{statistics.mean(row['drift'] for row in own):.5f}",
    ]  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    main()
