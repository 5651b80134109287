"""The plan of the paper's experiment: the runs and their order, and their results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

SEEDS = (0, 1, 2)
"""Seeds of the training runs; the starting policies are measured with the same ones."""

RATES = (1e-5, 3e-5, 1e-4)
"""Learning rates of the sweep."""

STRONG, MIXED, OWN, WORDY = "strong", "mixed", "own", "wordy"
"""The settings, as ``results.jsonl`` names them; the setting of the recipe has an empty name."""


@dataclass(frozen=True)
class Run:
    """One trained policy, or an untrained one (objective ``none``)."""

    objective: str
    rate: float = 0.0
    beta: float = 0.0
    """0 if the objective has no beta."""
    seed: int = 0
    """Seed of the order of the rows and of the measured answers."""
    epochs: int = 2
    setting: str = ""
    """The starting policy and the data: ``strong``, ``mixed``, ``own``, ``wordy``, or empty for those of the recipe."""
    options: str = ""
    """More keys of the recipe's train section, as ``key=value``, separated by spaces."""

    @property
    def key(self) -> str:
        """The identity of the run in ``results.jsonl``."""
        setting = f"{self.setting}-" if self.setting else ""
        if self.objective == "none":
            return f"{setting}none-s{self.seed}"
        options = "".join(f"-{option}" for option in self.options.split())
        return f"{setting}{self.objective}-b{self.beta:g}-lr{self.rate:g}-e{self.epochs}{options}-s{self.seed}"

    def seeds(self, seeds: Sequence[int] = SEEDS) -> list[Run]:
        """Return the run with each seed."""
        return [replace(self, seed=seed) for seed in seeds]


@dataclass(frozen=True)
class Result:
    """The measurements of a run: one row of ``results.jsonl``."""

    run: Run
    outcomes: Mapping[str, Mapping[str, int]]
    """1 or 0 for each question, by set of questions."""
    cpu_seconds: float
    drift: float | None = None
    """Nats per token from the starting policy of the setting; measured at seed 0."""
    steps: int | None = None
    pairs: int | None = None
    """Rows that it was trained on, those without y- included."""
    final: dict[str, float] | None = None
    """Training metrics of the last step."""
    train_cpu_seconds: float | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Result:
        """Read a row of ``results.jsonl``.

        Raises:
            SystemExit: the row was measured by an earlier version of the experiment, with other rounding.
        """
        if "options" not in row:
            raise SystemExit(f"{row['key']} was measured by an earlier version, with rounding to nearest: set --folder")
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

TEACHER = Run("sft", 3e-5, epochs=4)
"""The run that makes the strong policy; its seed is 0."""

BASELINE = Run("sft", 1e-5, epochs=1, setting=MIXED)
"""SFT on the corrections and on the strong policy's own right answers."""

CHALLENGERS = (
    replace(BASELINE, objective="spot-bce", beta=1.0),
    replace(BASELINE, objective="spot-focal", beta=1.0),
    replace(BASELINE, options="kept_weight=0.1"),
    replace(BASELINE, options="kept_kl=1"),
)
"""Runs on the same rows that are compared with ``BASELINE``."""

FASTER = (
    *(replace(run, rate=3e-5) for run in (BASELINE, *CHALLENGERS)),
    replace(BASELINE, rate=3e-5, options="rounding=nearest"),
    replace(BASELINE, rate=3e-5, options="dtype=float32"),
)
"""The same at the rate of earlier results, which were rounded to nearest; and what rounding has to do with it."""

WEAK = (
    Run("sft", 1e-5),
    Run("spot-bce", 1e-5, 1.0),
    Run("spot-focal", 1e-5, 1.0),
    Run("dpo", 1e-5, 1.0),
    Run("reward-sft", 1e-5, 0.1),
)
"""The untrained policy on the pairs of the recipe, each objective at the better beta of an earlier sweep."""

MORE_MIXED = (
    replace(BASELINE, epochs=2),
    replace(CHALLENGERS[0], options="kept_kl=1"),
    replace(CHALLENGERS[1], options="focal_tokens=edited"),
    replace(BASELINE, options="suffix_weight=0"),
    replace(BASELINE, objective="reward-sft", beta=0.1),
    replace(BASELINE, objective="nca", beta=1.0),
    replace(BASELINE, objective="dft"),
)

PAIRS_ONLY = (
    *(
        Run(objective, 1e-5, beta, setting=STRONG)
        for objective, beta in (
            ("sft", 0.0), ("spot-bce", 1.0), ("spot-focal", 1.0), ("dpo", 1.0), ("dpop", 1.0), ("reward-sft", 0.1),
            ("spot-bco", 1.0),
        )
    ),
    Run("sft", 1e-5, epochs=4, setting=STRONG),
)  # fmt: skip
"""The strong policy on its corrections only, twice as many epochs for about as many steps; SFT also for four."""

SWEEP = tuple(
    Run(objective, rate, beta)
    for objective, beta in (
        ("sft", 0.0), ("dft", 0.0), ("spot-bce", 0.1), ("spot-bce", 1.0), ("spot-bco", 1.0), ("spot-focal", 1.0),
        ("dpo", 1.0), ("dpop", 1.0), ("nca", 1.0), ("reward-sft", 0.1), ("reward-sft", 1.0),
    )
    for rate in RATES
)  # fmt: skip
"""The untrained policy again: all objectives at three learning rates, one seed."""

LONG_ANSWERS = tuple(
    Run(objective, 1e-5, beta, setting=WORDY)
    for objective, beta in (("sft", 0.0), ("spot-bce", 0.1), ("spot-bce", 1.0), ("spot-focal", 0.1))
)


def plan(*, more: bool) -> Iterator[list[Run]]:
    """Yield the phases in order: what is asked first comes first, and seeds that confirm come last.

    Args:
        more: also yield the phases that only complete the picture; they take several times as long.
    """
    yield [Run("none", setting=STRONG), BASELINE, *CHALLENGERS]
    yield list(FASTER)
    for seed in SEEDS[1:]:
        yield [replace(run, seed=seed) for run in (Run("none", setting=STRONG), BASELINE, *CHALLENGERS)]
    for seed in SEEDS:
        yield [replace(run, seed=seed) for run in (Run("none"), *WEAK)]
    if not more:
        return
    yield [Run("none", setting=WORDY), *LONG_ANSWERS]
    yield list(PAIRS_ONLY)
    for setting in ([replace(BASELINE, setting=OWN, epochs=2)], MORE_MIXED):
        yield [seeded for run in setting for seeded in run.seeds()]
    yield [run for run in SWEEP if run not in WEAK]


def all_runs() -> list[Run]:
    """Return every run of the plan, at seed 0 if there are several."""
    return list(dict.fromkeys(replace(run, seed=0) for phase in plan(more=True) for run in phase))
