"""The plan of the paper's experiment: the runs and their order, their results, and the best run of an objective."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

RATES = (1e-5, 3e-5, 1e-4)
"""Learning rates of the sweep."""

BETAS = (0.1, 1.0)
"""Betas of the sweep."""

SEEDS = (0, 1, 2)
"""Seeds of the training runs; the untrained policy is measured with the same ones."""

SKILL_SEEDS = range(100, 108)
"""Sampling seeds of the answers that show how often the untrained policy solves each problem."""

DRIFT_LIMIT = 0.02
"""Most nats per token that the best run of an objective may drift."""

STRONG, MIXED, OWN, WORDY = "strong", "mixed", "own", "wordy"
"""The later settings, as ``results.jsonl`` names them; the first setting has an empty name."""

WITH_REWARD = ("spot-bce", "spot-bco", "dpo", "reward-sft")
"""Objectives with a reward, and so with a beta."""

CONFIGURATIONS = [("sft", 0.0), *((objective, beta) for beta in BETAS for objective in WITH_REWARD)]
"""Objectives and betas of the sweep."""

LONGER = ("sft", "spot-bce")
"""Objectives that are also trained twice as long."""


@dataclass(frozen=True)
class Run:
    """One trained policy, or an untrained one (objective ``none``)."""

    objective: str
    rate: float = 0.0
    beta: float = 0.0
    """0 if the objective has no beta."""
    seed: int = 0
    """Seed of the order of the pairs and of the measured answers."""
    epochs: int = 2
    setting: str = ""
    """The starting policy and the data: ``strong``, ``mixed``, ``own``, ``wordy``, or empty for those of the recipe."""

    @property
    def key(self) -> str:
        """The identity of the run in ``results.jsonl``."""
        setting = f"{self.setting}-" if self.setting else ""
        if self.objective == "none":
            return f"{setting}none-s{self.seed}"
        return f"{setting}{self.objective}-b{self.beta:g}-lr{self.rate:g}-e{self.epochs}-s{self.seed}"


@dataclass(frozen=True)
class Result:
    """The measurements of a run: one row of ``results.jsonl``."""

    run: Run
    outcomes: Mapping[str, Mapping[str, int]]
    """1 or 0 for each question, by set of questions."""
    cpu_seconds: float
    drift: float | None = None
    """Nats per token; None for the runs with ``SKILL_SEEDS``, which only answer the test problems."""
    steps: int | None = None
    pairs: int | None = None
    final: dict[str, float] | None = None
    """Training metrics of the last step."""
    train_cpu_seconds: float | None = None

    @property
    def nats(self) -> float:
        """The drift of a run that measured it."""
        assert self.drift is not None
        return self.drift

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Result:
        """Read a row of ``results.jsonl``."""
        run = Run(**{field.name: row[field.name] for field in fields(Run)})
        return cls(run, **{field.name: row[field.name] for field in fields(cls) if field.name in row})

    def row(self) -> dict[str, Any]:
        """Return the row for ``results.jsonl``."""
        measured = ("outcomes", "drift", "steps", "pairs", "final", "train_cpu_seconds", "cpu_seconds")
        values = {name: getattr(self, name) for name in measured}
        return {"key": self.run.key, **asdict(self.run)} | {
            name: value for name, value in values.items() if value is not None
        }


Results = Mapping[str, Result]
"""All results, by ``Run.key``."""


def plan(results: Results, *, more: bool) -> Iterator[list[Run]]:
    """Yield the phases in order; the later ones depend on the results of the earlier ones.

    Args:
        results: the results so far; read again for each phase.
        more: also yield the later settings.
    """
    yield [Run("none", seed=seed) for seed in SEEDS]
    yield [Run(objective, rate, beta) for objective, beta in CONFIGURATIONS for rate in rates(objective, beta)]
    yield [Run("none", seed=seed) for seed in SKILL_SEEDS]
    yield [
        Run(objective, run.rate, run.beta, seed)
        for objective in dict(CONFIGURATIONS)
        for run in [best(results, objective).run]
        for seed in SEEDS[1:]
    ]
    yield [longer(results, objective) for objective in LONGER]
    if not more:
        return
    yield [Run("none", setting=STRONG), *strong_runs(results)]
    yield [Run("none", seed=seed, setting=STRONG) for seed in SKILL_SEEDS]
    yield [*(Run("none", seed=seed, setting=STRONG) for seed in SEEDS[1:]), *strong_repeats()]
    yield [Run("sft", 3e-5, seed=seed, setting=MIXED) for seed in SEEDS]
    yield [Run("sft", 3e-5, seed=seed, setting=OWN) for seed in SEEDS]
    yield [Run("none", setting=WORDY), *wordy_runs()]


def strong_runs(results: Results) -> list[Run]:
    """Return the runs from the strong policy: all objectives at their best, those of ``LONGER`` at all rates."""
    return [
        Run(objective, rate, run.beta, setting=STRONG)
        for objective in dict(CONFIGURATIONS)
        for run in [best(results, objective).run]
        for rate in (RATES if objective in LONGER else [run.rate])
    ]


def strong_repeats() -> list[Run]:
    """Return further runs from the strong policy: two objectives at more seeds, and with twice the epochs."""
    chosen = (("sft", 3e-5, 0.0), ("spot-bce", 1e-5, 1.0))
    seeds = [Run(*configuration, seed, setting=STRONG) for configuration in chosen for seed in SEEDS[1:]]
    return [*seeds, *(Run(*configuration, epochs=4, setting=STRONG) for configuration in chosen)]


def wordy_runs() -> list[Run]:
    """Return the runs on longer answers, which test whether a smaller beta is better for more tokens."""
    chosen = (("sft", 3e-5, 0.0), ("spot-bce", 3e-5, 0.1), ("spot-bce", 3e-5, 1.0))
    return [Run(*configuration, setting=WORDY) for configuration in chosen]


def longer(results: Results, objective: str) -> Run:
    """Return the best run of an objective with twice the epochs."""
    run = best(results, objective).run
    return Run(objective, run.rate, run.beta, epochs=2 * run.epochs)


def rates(objective: str, beta: float) -> tuple[float, ...]:
    """Return the learning rates of a configuration.

    The largest one is only tried at the first beta, and at the second beta with SPoT-BCE: it drifts several times
    further than ``DRIFT_LIMIT`` with every objective.
    """
    return RATES if beta != BETAS[1] or objective == "spot-bce" else RATES[:2]


def best(results: Results, objective: str) -> Result:
    """Return the best result of an objective in the sweep.

    It has the most right answers to the *validation* problems among the runs within ``DRIFT_LIMIT``. If no run is
    within the limit, it has the least drift.
    """
    tried = [
        results[Run(name, rate, beta).key]
        for name, beta in CONFIGURATIONS
        if name == objective
        for rate in rates(name, beta)
    ]
    within = [result for result in tried if result.nats <= DRIFT_LIMIT]
    if not within:
        return min(tried, key=lambda result: result.nats)
    return max(within, key=lambda result: (sum(result.outcomes["validation"].values()), -result.nats))
