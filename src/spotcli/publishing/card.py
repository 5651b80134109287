"""The dataset card: made from the rows and from the meta file of the pairs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from spotcli import __version__, outputs
from spotcli.console import counted, one_line
from spotcli.publishing.selection import Selection
from spotcli.redaction import public_value, redact


def card(name: str, pairs: Selection, samples: Selection | None, licence: str | None) -> str:
    """The card as Markdown, with the front matter that the hub reads.

    Args:
        name: ORG/NAME on the hub.
        pairs: the pairs.
        samples: the samples that they were made from.
        licence: its name on the hub; None: unknown.
    """
    meta = outputs.read_meta(pairs.path)
    counts, filters = meta.get("counts") or {}, meta.get("filters") or {}
    configs = ["configs:", "- config_name: pairs", "  data_files: data.jsonl", "  default: true"]
    configs += ["- config_name: samples", "  data_files: samples.jsonl"] if samples else []
    front = [f"license: {json.dumps(licence or 'unknown')}", "task_categories: [text-generation]"]
    front += ["tags: [spot, surgical-post-training, preference]", *configs]
    reviewed = [f"- left out, since a reviewer rejected them: {pairs.rejected}"] if pairs.rejected else []
    reviewed += [f"- corrected by a reviewer: {pairs.edited}"] if pairs.edited else []
    others = [f"- samples.jsonl: {counted(len(samples.lines), 'graded answer')}"] if samples else []
    own = [f"- of these, right answers of the model itself, without `rejected`: {pairs.right}"] if pairs.right else []
    parts = [
        "---", *front, "---", "",
        f"# {name}", "",
        "Wrong answers of a model (`rejected`) and their smallest corrections (`chosen`), made by `spot rectify`. A "
        "correction is graded again, and only right ones are kept.", "",
        "## Rows", "",
        f"- data.jsonl: {counted(len(pairs.lines), 'row' if own else 'pair')}", *own, *reviewed, *others,
        f"- oracles: {_listed(pairs.oracles)}", "",
        *_made(counts, filters),
        "## Licence", "",
        licence or "Unknown: the problems, the model and the oracle have terms of their own.", "",
        "## Versions", "", _listed({"spot": __version__} | (meta.get("versions") or {})), "",
    ]  # fmt: skip
    return redact("\n".join(parts))


def _made(counts: Mapping[str, Any], filters: Mapping[str, Any]) -> list[str]:
    """How the pairs came about, as far as the meta file has it."""
    facts = {
        "answers": counts.get("samples"),
        "right": counts.get("right"),
        "wrong": counts.get("wrong"),
        "undecided": counts.get("undecided"),
        "corrections accepted": counts.get("pairs"),
        "right answers kept": counts.get("kept"),
        "cost in US dollars": counts.get("cost"),
        "gamma (largest change ratio)": filters.get("gamma"),
        "change ratio in": filters.get("ratio_unit"),
        "right answers asked for": filters.get("keep"),
    }
    rows = [f"| {name} | {_text(value)} |" for name, value in facts.items() if value is not None]
    reasons = counts.get("reasons")
    lines = ["## How they were made", "", "| | |", "|---|---|", *rows, ""] if rows else []
    if isinstance(reasons, Mapping) and reasons:
        lines += [
            "Wrong answers without a pair:",
            "",
            *(f"- {_text(key)}: {_text(reasons[key])}" for key in reasons),
            "",
        ]
    return lines


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{_text(name)} {_text(value)}" for name, value in values.items())


def _text(value: Any) -> str:
    """A value as text in Markdown: on one line, and without its signs."""
    shown = f"{value:.4g}" if isinstance(value, float) else str(public_value(value))
    text = one_line(shown)
    for sign in "\\`*_[]<>|#":
        text = text.replace(sign, f"\\{sign}")
    return text
