"""What a whole run would take, projected from a probe: pairs, dollars, hours, memory, disk; and what is missing."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spotcli.console import counted, dollars, one_line, out
from spotcli.core.costs import GIB
from spotcli.core.stats import exact_interval


@dataclass(frozen=True)
class Missing:
    """Something that would stop the run, and what helps."""

    stage: str
    problem: str
    cure: str


@dataclass(frozen=True)
class Range:
    """A quantity between its ends; None where nothing limits it or it is unknown."""

    low: float | None
    likely: float | None
    high: float | None

    def times(self, factor: float) -> Range:
        return Range(*(None if value is None else value * factor for value in (self.low, self.likely, self.high)))


@dataclass(frozen=True)
class Probe:
    """What the first answers were."""

    problems: int
    """Of the probe."""
    total: int
    """Problems of the whole run."""
    trials: int
    """Answers per problem in the whole run."""
    answers: int
    wrong: int
    right: int
    undecided: int
    tokens: int
    """Generated tokens."""
    seconds: float
    """Time of answering, with loading the model; 0 if the answers were there already."""

    @property
    def expected_answers(self) -> int:
        return self.total * self.trials

    @property
    def wrong_share(self) -> Range:
        """The share of wrong answers with its exact 95 % interval."""
        if not self.answers:
            return Range(None, None, None)
        low, high = exact_interval(self.wrong, self.answers)
        return Range(low, self.wrong / self.answers, high)

    @property
    def wrong_answers(self) -> Range:
        return self.wrong_share.times(self.expected_answers)

    @property
    def tokens_per_second(self) -> float | None:
        return self.tokens / self.seconds if self.seconds and self.tokens else None


@dataclass(frozen=True)
class StagePlan:
    """What one stage would take; None where it is not known."""

    stage: str
    what: str
    """In words: how much of what."""
    hours: float | None = None
    dollars: Range | None = None
    memory: str = ""
    disk: float = 0.0
    """Bytes that the stage writes."""
    note: str = ""


@dataclass(frozen=True)
class RunPlan:
    """The plan of a whole run."""

    folder: str
    probe: Probe | None
    stages: list[StagePlan]
    missing: list[Missing]
    free: float
    """Bytes that are free on the disk of the run's folder."""
    max_hours: float | None = None
    max_cost: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def hours(self) -> float | None:
        """Of all stages whose time is known; None if none is."""
        known = [stage.hours for stage in self.stages if stage.hours is not None]
        return sum(known) if known else None

    @property
    def disk(self) -> float:
        return sum(stage.disk for stage in self.stages)

    @property
    def cost(self) -> Range:
        """US dollars of all stages."""
        parts = [stage.dollars for stage in self.stages if stage.dollars is not None]
        return Range(
            *(
                None if any(value is None for value in values) else sum(value or 0.0 for value in values)
                for values in (
                    [part.low for part in parts],
                    [part.likely for part in parts],
                    [part.high for part in parts],
                )
            )
        )

    def exceeded(self) -> Iterator[str]:
        """The limits that the run is likely to reach, in sentences."""
        likely = self.cost.likely
        if self.max_cost is not None and likely is not None and likely > self.max_cost:
            yield f"--max-cost {self.max_cost:g} is likely to stop the run: about {dollars(likely)} are needed."
        if self.max_hours is not None and self.hours is not None and self.hours > self.max_hours:
            yield f"--max-hours {self.max_hours:g} is likely to stop the run: about {hours(self.hours)} are needed."

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {
            "hours": self.hours,
            "disk": self.disk,
            "cost": asdict(self.cost),
            "exceeded": list(self.exceeded()),
            "wrong_answers": asdict(self.probe.wrong_answers) if self.probe else None,
        }


def hours(value: float) -> str:
    """A time such as ``45 s``, ``12 min`` or ``3.4 h``."""
    seconds = value * 3600
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{value:.1f} h"


def size(value: float) -> str:
    """A number of bytes such as ``0.4 GiB``."""
    return f"{value / GIB:.1f} GiB" if value >= 0.05 * GIB else f"{value / 2**20:.1f} MiB"


def money(value: Range) -> str:
    """US dollars: the likely amount and the ends that are known."""
    if value.likely is None:
        return "price unknown"
    if not value.likely and not value.high:
        return "nothing"
    low = "" if value.low is None else f"{dollars(value.low)} at least, "
    most = "no known limit" if value.high is None else f"at most {dollars(value.high)}"
    return f"about {dollars(value.likely)} ({low}{most})"


def show_plan(plan: RunPlan, recipe: Path) -> None:
    """Print a plan: the probe, the stages, what they need together, and what is missing.

    Args:
        recipe: the file, for the next command.
    """
    console = out()
    for line in _probe_lines(plan.probe):
        console.print(one_line(line), soft_wrap=True)
    console.print()
    for stage in plan.stages:
        parts = [stage.what or "not known", *_amounts(stage)]
        console.print(f"{stage.stage:<8} {one_line('; '.join(part for part in parts if part))}", soft_wrap=True)
        if stage.note:
            console.print(f"         {one_line(stage.note)}", style="dim", soft_wrap=True)
    console.print()
    console.print(one_line(f"together {_together(plan)}"), soft_wrap=True)
    for note in [*plan.notes, *plan.exceeded()]:
        console.print(one_line(note), soft_wrap=True)
    if not plan.missing:
        command = f"spot run {shlex.quote(str(recipe))} -o {shlex.quote(plan.folder)}"
        console.print(one_line(f"Nothing is missing. Next: {command}"), soft_wrap=True)
    for item in plan.missing:
        console.print(one_line(f"missing for {item.stage}: {item.problem}"), style="red", soft_wrap=True)
        if item.cure:
            console.print(one_line(f"  cure: {item.cure}"), style="green", soft_wrap=True)


def _probe_lines(probe: Probe | None) -> Iterator[str]:
    if probe is None:
        yield "No answers yet: what depends on them is not known."
        return
    share, wrong = probe.wrong_share, probe.wrong_answers
    yield (
        f"{counted(probe.answers, 'answer')} to the first {counted(probe.problems, 'problem')}: "
        f"{probe.right:,} right, {probe.wrong:,} wrong, {probe.undecided:,} undecided."
    )
    if share.likely is not None and wrong.low is not None and wrong.high is not None and wrong.likely is not None:
        assert share.low is not None
        assert share.high is not None
        yield (
            f"Wrong: {share.likely:.0%} (95 %: {share.low:.0%} to {share.high:.0%}), so about {wrong.likely:,.0f} "
            f"({wrong.low:,.0f} to {wrong.high:,.0f}) of {counted(probe.expected_answers, 'answer')}. "
            "The first problems may be easier or harder than the rest."
        )


def _amounts(stage: StagePlan) -> Iterator[str]:
    if stage.hours is not None:
        yield hours(stage.hours)
    if stage.dollars is not None:
        yield money(stage.dollars)
    if stage.memory:
        yield stage.memory
    if stage.disk:
        yield f"{size(stage.disk)} on disk"


def _together(plan: RunPlan) -> str:
    unknown: Sequence[str] = [stage.stage for stage in plan.stages if stage.hours is None]
    time = "time unknown" if plan.hours is None else f"about {hours(plan.hours)}"
    time += f" (without {', '.join(unknown)})" if unknown and plan.hours is not None else ""
    return f"{time}; {money(plan.cost)}; {size(plan.disk)} of {size(plan.free)} free disk space"
