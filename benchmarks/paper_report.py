"""The report of the paper's experiment: tables in Markdown, and a figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from paper_plan import (
    BASELINE,
    CHALLENGERS,
    FASTER,
    LONG_ANSWERS,
    MIXED,
    MORE_MIXED,
    OWN,
    PAIRS_ONLY,
    STRONG,
    SWEEP,
    WEAK,
    WORDY,
    Result,
    Results,
    Run,
)
from paper_questions import FAR, NEAR

from spotcli import jsonl
from spotcli.core.stats import Comparison, compare

TITLES = {
    "sft": "SFT", "dft": "DFT", "spot-bce": "SPoT-BCE", "spot-bco": "SPoT-BCO", "spot-focal": "SPoT-focal",
    "dpo": "DPO", "dpop": "DPOP", "nca": "NCA", "reward-sft": "Reward-SFT",
}  # fmt: skip

TABLES = (
    ("The strong policy, corrections and own right answers", (BASELINE, *CHALLENGERS, *MORE_MIXED)),
    ("The strong policy, the same rows at three times the learning rate", FASTER),
    ("The strong policy, other rows", (BASELINE, replace(BASELINE, setting=OWN, epochs=2), *PAIRS_ONLY)),
    ("The untrained policy", WEAK),
    ("Longer answers", LONG_ANSWERS),
    ("All objectives at three learning rates, untrained policy", SWEEP),
)
"""A title and the runs of each table; the first run is the one that the others are compared with."""


def report(folder: Path) -> None:
    """Print the tables of the runs that exist, and draw the figure into the folder."""
    results = read_results(jsonl.rows(folder / "results.jsonl"))
    for title, runs in TABLES:
        if len(lines := table(results, runs)) > 2:
            print(f"{title}:\n", *lines, "", sep="\n")
    for setting in ("", STRONG):
        if text := asked_again(results, setting):
            print(f"{text}\n")
    draw(results, folder / "gain-against-cost.svg")


def read_results(rows: Iterable[dict[str, Any]]) -> dict[str, Result]:
    """Read the rows of ``results.jsonl``."""
    return {row["key"]: Result.of(row) for row in rows}


def existing(results: Results, runs: Iterable[Run]) -> list[Result]:
    """Return the results that exist and have a starting policy to be compared with."""
    return [results[run.key] for run in runs if run.key in results and start_of(run).key in results]


def start_of(run: Run) -> Run:
    """Return the measurement of the policy that a run starts from, with the same sampling seed."""
    return Run("none", seed=run.seed, setting=STRONG if run.setting in (MIXED, OWN) else run.setting)


def starts(results: Results, trained: Sequence[Result]) -> list[Result]:
    """Return the result of the starting policy of each trained one."""
    return [results[start_of(result.run).key] for result in trained]


def outcomes(results: Iterable[Result], *names: str) -> dict[str, list[float]]:
    """Return the outcomes of each question over the results."""
    merged: dict[str, list[float]] = {}
    for result in results:
        for name in names:
            for id, right in result.outcomes[name].items():
                merged.setdefault(id, []).append(float(right))
    return merged


def change(before: Sequence[Result], after: Sequence[Result], *names: str) -> Comparison:
    """Compare results on some sets of questions."""
    return compare(outcomes(before, *names), outcomes(after, *names))


def flips(before: Sequence[Result], after: Sequence[Result]) -> tuple[int, int, int]:
    """Count answers to test problems: right before, lost (right before, then wrong), and won."""
    pairs = [
        (right, new.outcomes["test"][id])
        for old, new in zip(before, after, strict=True)
        for id, right in old.outcomes["test"].items()
    ]
    return sum(old for old, _ in pairs), sum(old > new for old, new in pairs), sum(old < new for old, new in pairs)


def points(comparison: Comparison) -> str:
    """Format a difference and its interval, in points."""
    low, high = 100 * comparison.low, 100 * comparison.high
    return f"{100 * comparison.difference:+.1f} ({low:+.1f} … {high:+.1f})"


def p_value(comparison: Comparison) -> str:
    """Format a p-value."""
    return f"{comparison.p_value:.2g}" if comparison.p_value >= 1e-4 else "< 0.0001"


def gains(before: Sequence[Result], after: Sequence[Result]) -> str:
    """Format the gain of each seed on the test problems, in points."""
    differences = (100 * change([old], [new], "test").difference for old, new in zip(before, after, strict=True))
    return ", ".join(f"{difference:+.1f}" for difference in differences)


def describe(run: Run) -> str:
    """Return the title of a run."""
    title = TITLES[run.objective] + ("+" if run.objective == "sft" and run.setting in ("", STRONG, WORDY) else "")
    parts = [title, *([f"beta {run.beta:g}"] if run.beta else []), *(f"`{option}`" for option in run.options.split())]
    return ", ".join(parts) + {OWN: ", own right answers only", STRONG: ", corrections only"}.get(run.setting, "")


def table(results: Results, runs: Sequence[Run]) -> list[str]:
    """Return a table with one line for all seeds of a run.

    Intervals are over problems; drift is that of seed 0. A comparison with the first run of the table uses the
    seeds that both have.

    Args:
        results: all results.
        runs: the runs, at seed 0.
    """
    names = (
        "objective", "rate", "steps", "seeds", "test, %", "gain, points (95 %)", "per seed",
        f"against {describe(runs[0])} (95 %)", "p", "kept, %", "lost / won per seed", "near families", "far families",
        "drift, nats/token",
    )  # fmt: skip
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for run in runs:
        if not (trained := existing(results, run.seeds())):
            continue
        base = starts(results, trained)
        test, near, far = (change(base, trained, *sets) for sets in (("test",), NEAR, FAR))
        before, lost, won = flips(base, trained)
        cells = [
            describe(run), f"{run.rate:g}", str(trained[0].steps or ""), str(len(trained)),
            f"{100 * test.before:.1f} → {100 * test.after:.1f}", points(test), gains(base, trained),
            *against(results, runs[0], trained),
            f"{100 * (1 - lost / before):.0f}" if before else "",
            f"{lost / len(trained):.0f} / {won / len(trained):.0f}", points(near), points(far),
            next((f"{result.drift:.4f}" for result in trained if result.drift is not None), ""),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def against(results: Results, first: Run, trained: Sequence[Result]) -> tuple[str, str]:
    """Compare a run with the first one of its table at the seeds that both have: difference and p-value."""
    if replace(trained[0].run, seed=0) == first:
        return "", ""
    rivals = {result.run.seed: result for result in existing(results, first.seeds())}
    both = [result for result in trained if result.run.seed in rivals]
    if not both:
        return "", ""
    comparison = change([rivals[result.run.seed] for result in both], both, "test")
    return points(comparison), p_value(comparison)


def asked_again(results: Results, setting: str) -> str:
    """Return a sentence on how many right answers the starting policy of a setting repeats with another seed."""
    runs = [results[run.key] for run in Run("none", setting=setting).seeds() if run.key in results]
    if len(runs) < 2:
        return ""
    before, lost, won = flips(runs, [*runs[1:], runs[0]])
    return (
        f"The {setting or 'untrained'} policy, asked again with another sampling seed: "
        f"{100 * (1 - lost / before):.0f} % of its right answers are right again; {lost / len(runs):.0f} lost and "
        f"{won / len(runs):.0f} won per seed."
    )


def draw(results: Results, path: Path) -> None:
    """Draw the gain of each objective with its interval, for both starting policies."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "spot"  # the same file from the same rows
    panels = (("untrained policy, pairs only", WEAK), ("strong policy, corrections and own right answers",
              (BASELINE, *CHALLENGERS)))  # fmt: skip
    drawing = Figure(figsize=(9, 3.2), layout="constrained")
    for axes, (title, runs) in zip(drawing.subplots(1, 2), panels, strict=True):
        lines = [trained for run in runs if (trained := existing(results, run.seeds()))]
        for place, trained in enumerate(lines):
            gain = change(starts(results, trained), trained, "test")
            width = [[100 * (gain.difference - gain.low)], [100 * (gain.high - gain.difference)]]
            axes.errorbar([100 * gain.difference], [place], xerr=width, fmt="o", color="#0072b2", capsize=2)
        names = [describe(trained[0].run).replace("`", "") for trained in lines]
        axes.set_yticks(range(len(lines)), [f"{name} ({len(own)})" for name, own in zip(names, lines, strict=True)])
        axes.set(title=title, xlabel="gain on held-out problems, points")
        axes.axvline(0, color="#888888", linewidth=1)
        axes.invert_yaxis()
        axes.grid(axis="x", color="#dddddd")
    drawing.savefig(path, metadata={"Date": None})
