"""The policy as its own oracle beside the symbolic one: pairs from the same samples, and training on them.

    python benchmarks/self_surgery.py pairs --samples samples.jsonl --folder own     minutes on two cores
    python benchmarks/self_surgery.py train --folder own --seeds 0 1 2               half an hour per seed; it resumes

``pairs`` makes pairs of the same samples with each oracle, and prints how many wrong answers became pairs, how many
tokens were generated for them, and how much the pairs change. ``train`` runs the recipe of the demo with pairs of
either oracle, as many of each, at several seeds, and prints the gain, what was right before and still is, and drift.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from spotcli import jsonl
from spotcli.recipe_yaml import load
from spotcli.stages.rectify import RectifySummary, rectify

RECIPE = Path(__file__).parent.parent / "recipes" / "smollm2-135m.yaml"

ORACLES: dict[str, dict[str, Any]] = {
    "symbolic": {"oracle": "symbolic"},
    "policy, sweep": {"oracle": "policy", "policy.search": "sweep"},
    "policy, bisect": {"oracle": "policy"},
    "policy, as sampled": {"oracle": "policy", "policy.temperature": 0.7, "policy.top_p": 0.8},
    "policy-prompted": {"oracle": "policy-prompted", "max_tokens": 128},
}
"""Name -> keys of ``rectify``; ``as sampled`` has the temperature and the nucleus of the samples."""


def pairs(samples: Path, folder: Path, names: list[str]) -> None:
    """Make pairs with each oracle and print a table."""
    folder.mkdir(parents=True, exist_ok=True)
    print("| oracle | wrong | pairs | share | tokens | per pair | mean change ratio | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for name in names:
        output = folder / f"{name.replace(', ', '-').replace(' ', '-')}.jsonl"
        keys = {"samples": str(samples.resolve()), "output": str(output.resolve()), **ORACLES[name]}
        summary = rectify(load(RECIPE, None, {f"rectify.{key}": value for key, value in keys.items()}))
        ratios = [row["change_ratio"] for row in jsonl.rows(output)]
        tokens = _tokens(output, summary)
        mean = f"{statistics.fmean(ratios):.3f}" if ratios else ""
        each = f"{tokens / summary.pairs:,.0f}" if summary.pairs else ""
        share = f"{summary.pairs / summary.wrong:.0%}"
        row = (name, summary.wrong, summary.pairs, share, f"{tokens:,}", each, mean, f"{summary.seconds:.0f}")
        print(f"| {' | '.join(map(str, row))} |", flush=True)
        print(f"  {name}: {json.dumps(summary.reasons)}", file=sys.stderr)


def _tokens(output: Path, summary: RectifySummary) -> int:
    """Generated tokens of all replies."""
    if "policy" in summary.oracles:
        return int(summary.oracles["policy"]["tokens"])
    replies = jsonl.rows(output.with_suffix(".replies.jsonl"))
    return sum(row.get("usage", {}).get("completion_tokens", 0) for row in replies)


def train(folder: Path, seeds: list[int], count: int) -> None:
    """Train on pairs of either oracle and print a table; each command resumes."""
    print("| oracle | seed | pairs | before | after | gain | right before, kept | drift |")
    print("|---|---|---|---|---|---|---|---|")
    for seed in seeds:
        own = folder / f"seed-{seed}"
        own.mkdir(parents=True, exist_ok=True)
        _spot(own, "sample", "--recipe", str(RECIPE), "--seed", str(seed))
        for kind in ("symbolic", "policy"):
            common = ("--recipe", str(RECIPE), "--seed", str(seed))
            made = _spot(own, "rectify", *common, "--oracle", kind, "-o", f"{kind}.jsonl", "--target", str(count))
            paths = ("-s", f"train.data={kind}.jsonl", "-s", f"train.output={kind}")
            _spot(own, "train", str(RECIPE), "--seed", str(seed), *paths)
            against = ("--against", "builtin:smollm2-135m")
            scores = _spot(own, "eval", kind, *common, *against, "-o", "scores")
            result = scores["comparisons"]["arithmetic"]["comparison"]
            right = scores["models"][0]["scores"]["arithmetic"]["right"]
            kept = f"{right - result['losses']} of {right}"
            gain = f"{100 * result['difference']:+.1f}"
            row = (kind, seed, made["pairs"], f"{result['before']:.1%}", f"{result['after']:.1%}", gain, kept)
            print(f"| {' | '.join(map(str, row))} | {scores['drift']:.2e} |", flush=True)


def _spot(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run a command of spot in a folder; its summary."""
    command = [sys.executable, "-m", "spotcli", *arguments, "--json"]
    done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["pairs", "train"])
    parser.add_argument("--folder", type=Path, default=Path("own"))
    parser.add_argument("--samples", type=Path, default=Path("samples.jsonl"))
    parser.add_argument("--oracles", nargs="+", choices=[*ORACLES], default=[*ORACLES])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--pairs", type=int, default=64, help="pairs of each oracle; the policy finds fewer")
    arguments = parser.parse_args()
    if arguments.task == "pairs":
        pairs(arguments.samples, arguments.folder, arguments.oracles)
    else:
        train(arguments.folder, arguments.seeds, arguments.pairs)


if __name__ == "__main__":
    main()
