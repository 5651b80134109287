"""The tables of benchmarks/gpu.py: gpu.json and gpu.md, with the goals beside the measurements."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

UNKNOWN = "not measured"


def write(folder: Path, rows: Sequence[Row]) -> None:
    """Write gpu.json and gpu.md from all rows so far; each file is replaced as a whole."""
    report = {"goals": goals(rows), "parts": parts(rows), "measurements": [row for row in rows if "name" in row]}
    for name, text in (("gpu.json", json.dumps(report, indent=2)), ("gpu.md", markdown(rows))):
        scratch = folder / f".{name}.new"
        scratch.write_text(text + "\n", encoding="utf-8")
        os.replace(scratch, folder / name)


def parts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The last state of each part."""
    states: dict[str, dict[str, Any]] = {}
    for row in rows:
        if "status" in row:
            states[row["part"]] = {key: row[key] for key in ("part", "status", "reason", "seconds") if key in row}
    return list(states.values())


def named(rows: Sequence[Row], name: str) -> Row | None:
    """The measurement of this name that has a speed; None if there is none."""
    return next((row for row in rows if row.get("name") == name and "pairs_per_second" in row), None)


def share_of_peak(rows: Sequence[Row], row: Row) -> float | None:
    """Useful operations per second as a share of the data sheet's peak; None for a device without a known peak."""
    peak = next((other["peak_teraflops"] for other in rows if other.get("name") == "machine"), None)
    if not peak or "operations" not in row:
        return None
    return float(row["operations"] / row["seconds"] / (peak * 1e12))


def goals(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each goal with its value and ``reached``, ``missed`` or ``not measured``. A tiny run measures none of them."""
    machine = next((row for row in rows if row.get("name") == "machine"), None)
    tiny = machine is None or bool(machine["tiny"])
    result = []
    for text, value, reached in _values(rows):
        known = value is not None and not tiny
        result.append(
            {"goal": text, "value": value if known else None,
             "result": ("reached" if reached(value) else "missed") if known and value is not None else UNKNOWN}
        )  # fmt: skip
    return result


Goal = tuple[str, float | None, Callable[[float], bool]]


def _values(rows: Sequence[Row]) -> list[Goal]:
    """The goals, the values that belong to them, and when they are reached."""
    return [
        ("times TRL's pairs per second on late edits, at least 3 (the smaller of both shapes)",
         least([ratio(rows, f"{shape}, late, spot", f"{shape}, late, TRL") for shape in ("8B LoRA", "1.7B")]),
         lambda value: value >= 3),
        ("times the pairs per second without sharing, at least 1 (the smallest of all measured)",
         least([
             ratio(rows, f"{shape}, {edit}, spot", f"{shape}, {edit}, not shared")
             for shape in ("8B LoRA", "1.7B") for edit in ("late", "middle", "early")
         ]),
         lambda value: value >= 1),
        ("share of the bfloat16 peak at 8B sizes, at least 45 %",
         None if (row := named(rows, "8B LoRA, late, spot")) is None else share_of_peak(rows, row),
         lambda value: value >= 0.45),
        ("memory in units of the estimate, 0.9 to 1.1 (the farthest of all runs of spot)",
         farthest([row["peak_gib"] / row["estimate_gib"] for row in rows if row.get("peak_gib", 0) and "side" in row
                   and "estimate_gib" in row]),
         lambda value: 0.9 <= value <= 1.1),
    ]  # fmt: skip


def ratio(rows: Sequence[Row], one: str, other: str) -> float | None:
    """How many times the pairs per second of another measurement; None if one of the two is missing."""
    first, second = named(rows, one), named(rows, other)
    return None if first is None or second is None else float(first["pairs_per_second"] / second["pairs_per_second"])


def least(values: Sequence[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def farthest(values: Sequence[float]) -> float | None:
    """The value farthest from 1."""
    return max(values, key=lambda value: abs(value - 1), default=None)


# --- Markdown ---------------------------------------------------------------------------------------------------------


def markdown(rows: Sequence[Row]) -> str:
    """The report for people."""
    machine = next((row for row in rows if row.get("name") == "machine"), None)
    lines = ["# spot on a GPU", ""]
    if machine is None:
        lines += ["The machine was not described: the first part failed or did not run.", ""]
    else:
        lines += [_about(machine), ""]
    lines += ["## Goals", "", "| goal | measured | result |", "|---|---|---|"]
    lines += [f"| {goal['goal']} | {_number(goal['value'])} | {goal['result']} |" for goal in goals(rows)]
    lines += _speed(rows) + _options(rows) + _checks(rows)
    lines += ["", "## Parts", "", "| part | state | seconds | reason |", "|---|---|---|---|"]
    lines += [
        f"| {part['part']} | {part['status']} | {part.get('seconds', '')} | {_cell(part.get('reason', ''))} |"
        for part in parts(rows)
    ]
    return "\n".join(lines)


def _about(machine: Row) -> str:
    peak = f"{machine['peak_teraflops']:g}" if machine["peak_teraflops"] else "unknown"
    small = " **Tiny models and short pairs: the figures say nothing about speed.**" if machine["tiny"] else ""
    return (
        f"{machine['device']}, torch {machine['torch']}, transformers {machine['transformers']}, accelerate "
        f"{machine['accelerate']}, peft {machine['peft']}. Peak {peak} TFLOP/s by the data sheet; a large "
        f"bfloat16 product reaches {machine['matmul_teraflops']:.3g} TFLOP/s, a copy "
        f"{machine['copy_gigabytes']:.3g} GB/s.{small}"
    )


def _speed(rows: Sequence[Row]) -> list[str]:
    head = "pairs/s | tokens/s | share of peak | memory, GiB | estimate, GiB"
    lines = ["", "## Speed", "", f"| shape | first edit | side | {head} |", "|---|---|---|---|---|---|---|---|"]
    sides = [row for row in rows if "side" in row]
    return [*lines, *(f"| {row['shape']} | {row['edit']} | {row['side']} | {_figures(rows, row)} |" for row in sides)]


def _options(rows: Sequence[Row]) -> list[str]:
    head = "pairs/s | tokens/s | share of peak | memory, GiB | estimate, GiB"
    lines = ["", "## Options, on late edits", "", f"| shape | option | {head} |", "|---|---|---|---|---|---|---|"]
    lines += [f"| {row['shape']} | {row['option']} | {_figures(rows, row)} |" for row in rows if "option" in row]
    timed = [row for row in rows if str(row.get("name", "")).startswith("attention, ")]
    if timed:
        lines += ["", "| one layer of attention at 8B sizes, forward and backward | ms |", "|---|---|"]
        lines += [f"| {row['name'][11:]} | {_number(row.get('milliseconds'))} {_why(row)} |" for row in timed]
    return lines


def _figures(rows: Sequence[Row], row: Row) -> str:
    if why := _why(row):
        return f"{why} | | | | "
    share = share_of_peak(rows, row)
    shown = UNKNOWN if share is None else f"{share:.1%}"
    memory, estimate = (_number(row.get(name)) for name in ("peak_gib", "estimate_gib"))
    return f"{row['pairs_per_second']:.3g} | {row['tokens_per_second']:,.0f} | {shown} | {memory} | {estimate}"


def _why(row: Row) -> str:
    """Why a row has no figures."""
    return "out of memory" if "out_of_memory" in row else _cell(str(row.get("skipped", "")))


def _checks(rows: Sequence[Row]) -> list[str]:
    lines = ["", "## Correctness", ""]
    compared = [row for row in rows if "bfloat16_shared" in row]
    if compared:
        lines += [
            "| architecture | attention | float32 | bfloat16, shared | bfloat16, separate |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {row['name']} | {row['attention']} | {row['float32']:.1e} | {row['bfloat16_shared']:.1e} | "
            f"{row['bfloat16_separate']:.1e} |"
            for row in compared
        ]
    for row in rows:
        if row.get("part") in ("whole runs", "QLoRA", "output layer", "drift") and "name" in row:
            values = ", ".join(f"{key} {_number(value)}" for key, value in row.items() if key not in ("part", "name"))
            lines += ["", f"{row['name']}: {values}"]
    return lines


def _number(value: Any) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    """Text for a cell of a table: one line, without the bars that end a cell."""
    return " ".join(text.split()).replace("|", "\\|")
