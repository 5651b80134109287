"""What is seen while a policy trains: metrics.jsonl, the progress line, and a sentence when rewards go astray."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spotcli import jsonl
from spotcli.console import say, warn

WINDOW = 8
"""Logged steps whose mean rewards are looked at."""
FALL = 3
"""Right answers that a check must have fewer, and half of the best check's too, before it is said."""


class Metrics:
    """metrics.jsonl: one row a logged step. Holding it open is the lock on the output folder."""

    def __init__(self, path: Path) -> None:
        self.file = jsonl.Appender(path)

    def keep_until(self, step: int) -> None:
        """Forget the steps after the checkpoint that the run goes on from: they come again."""
        rows = list(self.file.rows())
        kept = [row for row in rows if row["step"] <= step]
        if len(kept) < len(rows):
            path = self.file.path
            self.file.close()
            path.unlink()
            self.file = jsonl.Appender(path)
            self.file.append(kept)

    def close(self) -> None:
        self.file.close()


class Report:
    """The progress line, metrics.jsonl, and a sentence when rewards go where nobody would want them."""

    def __init__(self, display: Any, name: str, total: int, done: int, metrics: Metrics | None = None) -> None:
        self.display, self.metrics = display, metrics
        self.bar = display.add_task(name, total=total, note="")
        display.advance(self.bar, done)
        before = list(metrics.file.rows()) if metrics is not None else []
        self.final = self._numbers(before[-1]) if before else {}
        self.best = max((_right(row) for row in before if "check_right" in row), default=0.0)
        self.pairs = self.seconds = 0.0
        self.window: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self.said: set[str] = set()

    @property
    def pairs_per_second(self) -> float | None:
        return round(self.pairs / self.seconds, 3) if self.seconds else None

    def __call__(self, row: dict[str, Any]) -> None:
        if self.metrics is not None:
            self.metrics.file.append([row])
        self.final = self._numbers(row)
        self.pairs += row["pairs"]
        self.seconds += row["seconds"]
        note = self._note(row)
        self.display.update(self.bar, advance=row["pairs"], note=note)
        tenth = max(1, row["steps"] // 10)
        if self.display.disable and (row["step"] % tenth == 0 or row["step"] in (1, row["steps"])):
            speed = f"{row['pairs_per_second']:.2f} pairs/s, {row['tokens_per_second']:.0f} tokens/s"
            say(f"step {row['step']} of {row['steps']}: {note}, {speed}")
        self._watch(row)
        if "check_right" in row:
            self._checked(row)

    @staticmethod
    def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
        return {name: value for name, value in row.items() if name not in ("step", "steps", "pairs", "seconds")}

    @staticmethod
    def _note(row: Mapping[str, Any]) -> str:
        parts = [f"loss {row['loss']:.4f}"]
        if "rewards_chosen" in row:
            parts.append(f"rewards {row['rewards_chosen']:+.3f} / {row['rewards_rejected']:+.3f}")
            parts.append(f"margin {row['margin']:.3f}")
        if "moved_kept" in row:
            kept, chosen, rejected = row["moved_kept"], row["moved_chosen"], row["moved_rejected"]
            parts.append(f"nats a token: kept {kept:+.3f}, edited {chosen:+.3f} / {rejected:+.3f}")
        if "shift" in row:
            parts.append(f"shift {row['shift']:+.3f}")
        if "tether" in row:
            parts.append(f"tether {row['tether']:.2f}")
        return ", ".join(parts)

    def _watch(self, row: Mapping[str, Any]) -> None:
        if "rewards_chosen" not in row:
            return
        self.window.append((row["rewards_chosen"], row["rewards_rejected"]))
        if len(self.window) < WINDOW:
            return
        chosen, rejected = (sum(rewards) / WINDOW for rewards in zip(*self.window, strict=True))
        if chosen < -0.05:
            self._once(
                "falling",
                f"the chosen answers have become less likely than they were (mean reward {chosen:+.2f} over "
                f"{WINDOW} logged steps): the policy "
                "unlearns both answers. A smaller learning rate, a larger beta or spot-bce hold them up.",
            )
        if rejected > 0.05:
            self._once(
                "pull-up",
                f"the rejected answers have become more likely than they were (mean reward {rejected:+.2f} over "
                f"{WINDOW} logged steps): pull-up, what "
                "both answers share pulls them up. spot-bce and spot-bco push them down.",
            )

    def _checked(self, row: Mapping[str, Any]) -> None:
        right, wrong, undecided, failed, cut, empty = (
            int(row[f"check_{name}"]) for name in ("right", "wrong", "undecided", "failed", "cut", "empty")
        )
        answered = right + wrong + undecided
        say(
            f"check after step {row['step']}: {right} right, {wrong} wrong, {undecided} undecided ({cut} cut, {empty} "
            f"empty)" + (f", {failed} failed" if failed else "") + f"; {row['check_tokens']:.0f} tokens an answer"
        )
        if answered and cut + empty == answered:
            self._once(
                "degenerate",
                f"after step {row['step']} no answer of the check is one: {cut} of {answered} did not end, {empty} are "
                "empty. Unless the policy was so before, training broke it: a smaller learning rate, a larger beta or "
                "fewer epochs.",
            )
        share = _right(row)
        if share <= self.best / 2 and (self.best - share) * answered >= FALL:
            self._once(
                "forgetting",
                f"after step {row['step']} {share:.0%} of the check's answers are right, and {self.best:.0%} were "
                "before: the policy unlearns its own problems. A smaller learning rate or fewer epochs.",
            )
        self.best = max(self.best, share)

    def _once(self, name: str, text: str) -> None:
        if name not in self.said:
            self.said.add(name)
            warn(text)


def _right(row: Mapping[str, Any]) -> float:
    """The share of a check's answers that are right."""
    right, wrong, undecided = (float(row[f"check_{name}"]) for name in ("right", "wrong", "undecided"))
    return right / max(right + wrong + undecided, 1.0)
