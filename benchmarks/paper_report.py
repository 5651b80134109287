"""The report of the paper's experiment: tables in Markdown, and a figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from paper_plan import (
    BETAS,
    CONFIGURATIONS,
    DRIFT_LIMIT,
    LONGER,
    MIXED,
    OWN,
    RATES,
    SEEDS,
    SKILL_SEEDS,
    STRONG,
    Result,
    Results,
    Run,
    best,
    longer,
    plan,
    rates,
    wordy_runs,
)
from paper_questions import FAR, NEAR

from spotcli import jsonl
from spotcli.core.stats import Comparison, compare

TITLES = {"sft": "SFT+", "spot-bce": "SPoT-BCE", "spot-bco": "SPoT-BCO", "dpo": "DPO", "reward-sft": "Reward-SFT"}
COLOURS = {"sft": "#444444", "spot-bce": "#0072b2", "spot-bco": "#56b4e9", "dpo": "#d55e00", "reward-sft": "#009e73"}


def report(folder: Path) -> None:
    """Print the tables and draw the figure into the folder, for the runs that exist.

    The phases up to the skills are required.
    """
    results = read_results(jsonl.rows(folder / "results.jsonl"))
    later = [run for phase in plan(results, more=True) for run in phase if run.setting in (STRONG, MIXED, OWN)]
    strong_lines, wordy_lines = by_seed(results, later), by_seed(results, wordy_runs())
    tables = [
        best_table(results), sweep_table(results), longer_table(results),
        skill_table(results, [runs_at_best(results, objective) for objective in TITLES]),
        setting_table(results, strong_lines), skill_table(results, strong_lines), setting_table(results, wordy_lines),
    ]  # fmt: skip
    print(*("\n".join(table) for table in tables), sep="\n\n")
    draw(results, folder / "gain-against-cost.svg")


def read_results(rows: Iterable[dict[str, Any]]) -> dict[str, Result]:
    """Read the rows of ``results.jsonl``."""
    return {row["key"]: Result.of(row) for row in rows}


def runs_at_best(results: Results, objective: str) -> list[Result]:
    """Return the existing results of an objective at its best beta and learning rate, by seed."""
    run = best(results, objective).run
    keys = [Run(objective, run.rate, run.beta, seed).key for seed in SEEDS]
    return [results[key] for key in keys if key in results]


def by_seed(results: Results, runs: Iterable[Run]) -> list[list[Result]]:
    """Return the existing results of trained policies; those that differ only in their seed are together."""
    lines: dict[Run, list[Result]] = {}
    for run in runs:
        if run.objective != "none" and run.key in results:
            lines.setdefault(replace(run, seed=0), []).append(results[run.key])
    return list(lines.values())


def untrained(results: Results, trained: Sequence[Result]) -> list[Result]:
    """Return the result of the starting policy of each trained one, with the same sampling seed."""
    starts = {MIXED: STRONG, OWN: STRONG}
    runs = [result.run for result in trained]
    return [results[Run("none", seed=run.seed, setting=starts.get(run.setting, run.setting)).key] for run in runs]


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


def points(comparison: Comparison) -> str:
    """Format a difference and its interval, in points."""
    low, high = 100 * comparison.low, 100 * comparison.high
    return f"{100 * comparison.difference:+.1f} ({low:+.1f} … {high:+.1f})"


def gains(before: Sequence[Result], after: Sequence[Result]) -> str:
    """Format the gain of each seed on the test problems, in points."""
    differences = (100 * change([old], [new], "test").difference for old, new in zip(before, after, strict=True))
    return ", ".join(f"{difference:+.1f}" for difference in differences)


def header(*cells: str) -> list[str]:
    """Return the first two lines of a table."""
    return [f"| {' | '.join(cells)} |", "|---" * len(cells) + "|"]


def label(objective: str, beta: float) -> str:
    """Return the title of a configuration."""
    return TITLES[objective] + (f", beta {beta:g}" if beta else "")


def describe(run: Run) -> str:
    """Return the title of a run, with its setting and epochs."""
    name = label(run.objective, run.beta) + {MIXED: ", with own right answers"}.get(run.setting, "")
    if run.setting == OWN:
        name = "SFT, own right answers only"
    return name + ("" if run.epochs == Run.epochs else f", {run.epochs} epochs")


def best_table(results: Results) -> list[str]:
    """Return the table of all objectives at their best: intervals over problems, the range of drift over seeds."""
    lines = header(
        "objective", "learning rate", "seeds", "test, %", "gain, points (95 %)", "per seed", "against SFT+ (95 %)",
        "near families", "far families", "drift, nats/token",
    )  # fmt: skip
    sft = runs_at_best(results, "sft")
    for objective in TITLES:
        trained = runs_at_best(results, objective)
        base = untrained(results, trained)
        test = change(base, trained, "test")
        drifts = sorted(result.nats for result in trained)
        against_sft = "" if objective == "sft" else points(change(sft[: len(trained)], trained, "test"))
        run = trained[0].run
        cells = [
            label(objective, run.beta), f"{run.rate:g}", str(len(trained)),
            f"{100 * test.before:.1f} → {100 * test.after:.1f}", points(test),
            gains(base, trained), against_sft, points(change(base, trained, *NEAR)),
            points(change(base, trained, *FAR)), f"{drifts[0]:.4f} … {drifts[-1]:.4f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def sweep_table(results: Results) -> list[str]:
    """Return the table of all configurations at seed 0: gain in points, change on far families, drift."""
    lines = header("objective", *(f"at {rate:g}" for rate in RATES))
    for objective, beta in CONFIGURATIONS:
        cells = [label(objective, beta)]
        for rate in rates(objective, beta):
            result = results[Run(objective, rate, beta).key]
            test, far = (change(untrained(results, [result]), [result], *names) for names in (("test",), FAR))
            cells.append(f"{100 * test.difference:+.1f}; {100 * far.difference:+.1f}; {result.nats:.4f}")
        lines.append(f"| {' | '.join(cells + ['not tried'] * (len(RATES) + 1 - len(cells)))} |")
    return lines


def longer_table(results: Results) -> list[str]:
    """Return the table of runs with twice the epochs at seed 0: gain in points, change on far families, drift."""
    lines = header("objective", "epochs", "gain, points (95 %)", "far families", "drift, nats/token")
    for objective in LONGER:
        keys = [best(results, objective).run.key, longer(results, objective).key]
        for result in (results[key] for key in keys if key in results):
            test, far = (change(untrained(results, [result]), [result], *names) for names in (("test",), FAR))
            name, epochs = label(objective, result.run.beta), result.run.epochs
            lines.append(f"| {name} | {epochs} | {points(test)} | {points(far)} | {result.nats:.4f} |")
    return lines


def setting_table(results: Results, table: list[list[Result]]) -> list[str]:
    """Return the table of a setting: one line for all seeds of a run, against its starting policy; drift is a mean.

    Args:
        results: all results.
        table: the results of each line.
    """
    lines = header(
        "objective", "learning rate", "test, %", "gain, points (95 %)", "per seed", "near families", "far families",
        "drift, nats/token",
    )  # fmt: skip
    for trained in table:
        base, run = untrained(results, trained), trained[0].run
        test, near, far = (change(base, trained, *names) for names in (("test",), NEAR, FAR))
        cells = [
            describe(run), f"{run.rate:g}", f"{100 * test.before:.1f} → {100 * test.after:.1f}", points(test),
            gains(base, trained), points(near), points(far), f"{fmean(result.nats for result in trained):.4f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def skill_table(results: Results, table: list[list[Result]]) -> list[str]:
    """Return the table of accuracy by how often the starting policy is right in eight separate answers.

    Args:
        results: all results.
        table: the results of each line: of one objective, and all of one setting.
    """
    setting = table[0][0].run.setting if table else ""
    keys = [Run("none", seed=seed, setting=setting).key for seed in SKILL_SEEDS]
    eight = outcomes([results[key] for key in keys if key in results], "test")
    groups = {
        "never right": [id for id, answers in eight.items() if not sum(answers)],
        "right once or twice in eight answers": [id for id, answers in eight.items() if 1 <= sum(answers) <= 2],
        "right more often": [id for id, answers in eight.items() if sum(answers) > 2],
    }
    lines = header("objective", *(f"{name}: {len(ids)} problems" for name, ids in groups.items()))
    for trained in table:
        before, after = outcomes(untrained(results, trained), "test"), outcomes(trained, "test")
        cells = [f"{describe(trained[0].run)}, {trained[0].run.rate:g}"]
        for ids in groups.values():
            if not ids:
                cells.append("")
                continue
            old, new = (fmean(right for id in ids for right in side[id]) for side in (before, after))
            cells.append(f"{100 * old:.1f} → {100 * new:.1f} %")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def draw(results: Results, path: Path) -> None:
    """Draw gain against drift at seed 0; a line joins the learning rates of one objective and beta."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "spot"  # the same file from the same rows
    drawing = Figure(figsize=(9, 5), layout="constrained")
    axes = drawing.subplots()
    for objective, beta in CONFIGURATIONS:
        line = [results[Run(objective, rate, beta).key] for rate in rates(objective, beta)]
        comparisons = [change(untrained(results, [result]), [result], "test") for result in line]
        middle = [100 * gain.difference for gain in comparisons]
        below = [100 * (gain.difference - gain.low) for gain in comparisons]
        above = [100 * (gain.high - gain.difference) for gain in comparisons]
        axes.errorbar(
            [result.nats for result in line], middle, yerr=[below, above],
            color=COLOURS[objective], linestyle=":" if beta == BETAS[0] else "-", marker="o", capsize=2, linewidth=1.2,
            markerfacecolor="white" if beta == BETAS[0] else None, label=label(objective, beta), elinewidth=0.6,
        )  # fmt: skip
    axes.axvline(DRIFT_LIMIT, color="#aa0000", linestyle="--", linewidth=1)
    axes.set(xscale="log", xlabel="drift, nats/token", ylabel="gain on held-out problems, points")
    axes.grid(color="#dddddd")
    drawing.legend(loc="outside right upper", fontsize="small")
    drawing.savefig(path, metadata={"Date": None})
