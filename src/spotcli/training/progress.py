"""What a run shows: metrics.jsonl, the progress line, and warnings about rewards and answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spotcli.appender import Appender
from spotcli.console import note_renamed_fields, say, warn
from spotcli.errors import DataError
from spotcli.policies.cpu_threads import Pace
from spotcli.training.summary import RENAMED_METRICS, TrainSummary, with_new_names

if TYPE_CHECKING:
    from rich.progress import Progress

WINDOW = 8
"""Logged training steps whose mean rewards are watched."""

DISPLACED = -0.05
"""Nats per token; right answers to other problems that become less likely than this are a warning."""

FALL = 3
"""A warning requires at least this many right answers fewer than in the best check, and at most half of them."""


class Metrics:
    """metrics.jsonl, with one row per logged training step. The open file is the lock of the output folder."""

    def __init__(self, path: Path) -> None:
        self.file = Appender(path)

    def keep_until(self, step: int) -> None:
        """Remove the rows after a training step, from which the run resumes."""
        rows = self._valid_rows()
        kept = [row for row in rows if row["step"] <= step]
        if len(kept) < len(rows):
            self.file.replace(kept)

    def rows(self) -> list[dict[str, Any]]:
        """The rows, with metrics of earlier versions under their names of this version."""
        rows = self._valid_rows()
        renamed = {old: new for old, new in RENAMED_METRICS.items() if any(old in row for row in rows)}
        note_renamed_fields(self.file.path, renamed)
        return [with_new_names(row) for row in rows]

    def _valid_rows(self) -> list[dict[str, Any]]:
        """All rows.

        Raises:
            DataError: a row without a training step.
        """
        rows = list(self.file.rows())
        for number, row in enumerate(rows, 1):
            if not isinstance(row.get("step"), int):
                raise DataError(
                    f"row {number} has no valid 'step'",
                    where=str(self.file.path),
                    cure="remove that line, or restart with --fresh",
                )
        return rows

    def close(self) -> None:
        self.file.close()


class Report:
    """Takes each row of metrics: writes it, shows it in the progress line, and warns about rewards and answers.

    Args:
        display: the progress display.
        summary: the summary of the run before it starts.
        resumed_from: the training step after which the run resumes.
        metrics: the file to write the rows to; None if another process writes it.
    """

    def __init__(
        self, display: Progress, summary: TrainSummary, resumed_from: int, metrics: Metrics | None = None
    ) -> None:
        self.display, self.metrics = display, metrics
        total = round((summary.rows_per_epoch or summary.pairs) * summary.epochs)
        resumed = min(total, resumed_from * summary.batch_size)
        self.bar = display.add_task(summary.objective, total=total, completed=resumed, note="")
        earlier = metrics.rows() if metrics is not None else []
        self.final = self._numbers(earlier[-1]) if earlier else {}
        self.best = max((_share_right(row) for row in earlier if "check_right" in row), default=0.0)
        self.pairs = self.seconds = 0.0
        self.window: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self.warned: set[str] = set()
        self.pace = Pace("training")

    @property
    def pairs_per_second(self) -> float | None:
        """Over the training steps of this start; None before the first one."""
        return round(self.pairs / self.seconds, 3) if self.seconds else None

    def __call__(self, row: dict[str, Any]) -> None:
        if self.metrics is not None:
            self.metrics.file.append([row])
        self.final = self._numbers(row)
        self.pairs += row["pairs"]
        self.seconds += row["seconds"]
        self.pace.add(row["tokens_per_second"] * row["seconds"], row["seconds"])
        note = self._note(row)
        self.display.update(self.bar, advance=row["pairs"], note=note)
        tenth = max(1, row["steps"] // 10)
        if self.display.disable and (row["step"] % tenth == 0 or row["step"] in (1, row["steps"])):
            speed = f"{row['pairs_per_second']:.2f} pairs/s, {row['tokens_per_second']:.0f} tokens/s"
            say(f"step {row['step']} of {row['steps']}: {note}, {speed}")
        self._watch_rewards(row)
        if row.get("displacement", 0.0) < DISPLACED:
            self._warn_once(
                "displacement",
                f"after step {row['step']} right answers to other problems are less likely than at the start "
                f"({row['displacement']:+.3f} nats per token, {row['displaced']:.0%} of the answers). Try a smaller "
                "learning_rate, a larger beta, or right answers beside the corrections (spot rectify --keep).",
            )
        if "check_right" in row:
            self._show_check(row)

    @staticmethod
    def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
        return {name: value for name, value in row.items() if name not in ("step", "steps", "pairs", "seconds")}

    @staticmethod
    def _note(row: Mapping[str, Any]) -> str:
        parts = [f"loss {row['loss']:.4f}"]
        if "rewards_chosen" in row:
            parts.append(f"rewards {row['rewards_chosen']:+.3f} / {row['rewards_rejected']:+.3f}")
            parts.append(f"margin {row['margin']:.3f}")
        if "rewards_error" in row:
            parts.append(f"reward of errors {row['rewards_error']:+.3f}")
        if "rewards_kept" in row:
            parts.append(f"reward without y- {row['rewards_kept']:+.3f}")
        if "logp_change_kept" in row:
            kept, chosen, rejected = (
                row[f"logp_change_{part}"] for part in ("kept", "chosen_edited", "rejected_edited")
            )
            parts.append(f"log-prob change (nats/token): kept {kept:+.3f}, edited {chosen:+.3f} / {rejected:+.3f}")
        if "kl_kept" in row:
            parts.append(f"KL of kept tokens {row['kl_kept']:.4f}")
        if "shift" in row:
            parts.append(f"shift {row['shift']:+.3f}")
        if "tether" in row:
            parts.append(f"tether {row['tether']:.2f}")
        if "displacement" in row:
            parts.append(f"displacement {row['displacement']:+.4f} nats/token")
        return ", ".join(parts)

    def _watch_rewards(self, row: Mapping[str, Any]) -> None:
        if "rewards_chosen" not in row:
            return
        # spot-focal lowers the errors of y- alone.
        self.window.append((row["rewards_chosen"], row.get("rewards_error", row["rewards_rejected"])))
        if len(self.window) < WINDOW:
            return
        chosen, rejected = (sum(rewards) / WINDOW for rewards in zip(*self.window, strict=True))
        if chosen < -0.05:
            self._warn_once(
                "falling",
                f"the chosen answers are less likely than at the start (mean reward {chosen:+.2f} over {WINDOW} logged "
                "steps): the policy unlearns both answers. Try a smaller learning_rate, a larger beta, or spot-bce.",
            )
        if rejected > 0.05:
            self._warn_once(
                "pull-up",
                f"the rejected answers are more likely than at the start (mean reward {rejected:+.2f} over {WINDOW} "
                "logged steps). This is pull-up: training on the shared tokens raises both answers. Try spot-bce or "
                "spot-bco, which lower the rejected answer.",
            )

    def _show_check(self, row: Mapping[str, Any]) -> None:
        right, wrong, undecided, failed, truncated, empty = (
            int(row[f"check_{name}"]) for name in ("right", "wrong", "undecided", "failed", "truncated", "empty")
        )
        answered = right + wrong + undecided
        say(
            f"generation check after step {row['step']}: {right} right, {wrong} wrong, {undecided} undecided "
            f"({truncated} truncated, {empty} empty)"
            + (f", {failed} failed" if failed else "")
            + f"; {row['check_tokens']:.0f} tokens per answer"
        )
        if answered and truncated + empty == answered:
            self._warn_once(
                "degenerate",
                f"after step {row['step']} the check has no usable answer: {truncated} of {answered} are truncated, "
                f"{empty} are empty. If the starting policy answers, try a smaller learning_rate, a larger beta or "
                "fewer epochs.",
            )
        share = _share_right(row)
        if share <= self.best / 2 and (self.best - share) * answered >= FALL:
            self._warn_once(
                "forgetting",
                f"after step {row['step']} {share:.0%} of the check's answers are right, down from {self.best:.0%}: "
                "the policy unlearns its own problems. Try a smaller learning_rate or fewer epochs.",
            )
        self.best = max(self.best, share)

    def _warn_once(self, name: str, text: str) -> None:
        if name not in self.warned:
            self.warned.add(name)
            warn(text)


def counter(display: Progress | None, name: str, total: int) -> Callable[[int], None]:
    """A function that advances a new bar of the display; does nothing without a display."""
    if display is None:
        return lambda count: None
    bar = display.add_task(name, total=total, note="")
    return lambda count: display.advance(bar, count)


def _share_right(row: Mapping[str, Any]) -> float:
    """The share of right answers in a check."""
    right, wrong, undecided = (float(row[f"check_{name}"]) for name in ("right", "wrong", "undecided"))
    return right / max(right + wrong + undecided, 1.0)
