"""The answers of an evaluation as logs of inspect_ai, for its viewer: one file per model and task.

    inspect view --log-dir scores/inspect-logs

The format is version 2 of ``inspect_ai.log.EvalLog`` as JSON, whose fields have a fixed order: the header is read
without the samples. The program itself is not needed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spotcli import files, jsonl, outputs
from spotcli.evaluation.asked_tasks import ModelRows
from spotcli.evaluation.scores import EvalSummary, ModelScores, TaskScore
from spotcli.records import Score

FOLDER = "inspect-logs"
"""Name of the folder of the logs, in the folder of the scores."""

_VALUES = {"right": "C", "wrong": "I", "undecided": "N"}
"""Verdict -> inspect's value of a score: correct, incorrect, no answer."""
_STOPS = {"stop": "stop", "length": "max_tokens"}
_ROLES = {"system": "system", "developer": "system", "assistant": "assistant"}
"""Roles of messages in inspect; a message of any other role is shown as one of the user."""


def write_logs(folder: Path, summary: EvalSummary, models: Sequence[ModelRows]) -> list[Path]:
    """Write the logs of all models of an evaluation and return their paths; earlier logs of the same are replaced.

    Args:
        folder: of the logs.
        summary: of the evaluation.
        models: the answers of its models, in its order.
    """
    paths = []
    for model, answers in zip(summary.models, models, strict=True):
        meta = outputs.read_meta(Path(model.path))
        for score in model.scores.values():
            path = folder / _name(model, score, meta)
            files.make_parent(path)
            ending = f"_{_id(model.model, score.task)}.json"
            for earlier in folder.iterdir():
                if earlier != path and earlier.name.endswith(ending):
                    earlier.unlink(missing_ok=True)
            rows = [row for row in answers.rows if row.task == score.task]
            files.replace(path, _log(model, score, rows, meta, summary))
            paths.append(path)
    return paths


def _name(model: ModelScores, score: TaskScore, meta: Mapping[str, Any]) -> str:
    """``TIME_TASK_ID.json``; inspect lists only files whose names begin with a time."""
    time = re.sub(r"[:.]", "-", _time(meta, "started"))
    task = re.sub(r"[^A-Za-z0-9]+", "-", score.task).strip("-") or "task"
    return f"{time}_{task}_{_id(model.model, score.task)}.json"


def _id(*parts: str) -> str:
    """A stable identifier of 22 characters, as long as those of inspect."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:22]


def _time(meta: Mapping[str, Any], name: str) -> str:
    """A time of the meta file, in UTC as ISO 8601; the beginning of all times if it has none."""
    try:
        time = datetime.fromisoformat(str(meta.get(name)))
    except ValueError:
        time = datetime.fromtimestamp(0, UTC)
    return time.astimezone(UTC).isoformat(timespec="seconds")


def _log(
    model: ModelScores, score: TaskScore, rows: Sequence[Score], meta: Mapping[str, Any], summary: EvalSummary
) -> Iterator[bytes]:
    """The file in parts."""
    epochs = max(row.trial for row in rows) + 1
    header = {
        "version": 2,
        "status": "success",
        "eval": _spec(model, score, meta, summary, epochs=epochs),
        "plan": {"name": "plan", "steps": [], "config": _sampling(meta)},
        "results": _results(score),
        "stats": {
            "started_at": _time(meta, "started"),
            "completed_at": _time(meta, "finished"),
            "model_usage": {model.model: _usage(score.tokens)},
        },
    }
    yield _json(header)[:-1] + b', "samples": ['
    for index, row in enumerate(rows):
        yield (b",\n" if index else b"\n") + _json(_sample(row, model.model))
    yield b"\n]}\n"


def _json(value: Mapping[str, Any]) -> bytes:
    """A value as JSON on one line; lone surrogates become U+FFFD."""
    return jsonl.encode([value]).rstrip(b"\n")


def _spec(
    model: ModelScores, score: TaskScore, meta: Mapping[str, Any], summary: EvalSummary, *, epochs: int
) -> dict[str, Any]:
    sampling = _sampling(meta)
    return {
        "eval_id": _id("eval", model.model, score.task),
        "run_id": _id("run", summary.model, summary.against or ""),
        "created": _time(meta, "started"),
        "task": score.task,
        "task_id": _id(model.model, score.task),
        "task_version": 0,
        "task_attribs": {},
        "task_args": {},
        "metadata": {"group": score.group, "trained": score.trained, "scores": model.path},
        "model": model.model,
        "model_generate_config": sampling,
        "model_args": {},
        "dataset": {"name": score.task, "samples": score.estimate.problems, "shuffled": False},
        "config": {"epochs": epochs, "epochs_reducer": ["mean"]},
        "scorers": [{"name": "spot", "metrics": [{"name": "accuracy"}, {"name": "stderr"}]}],
        "packages": dict(summary.versions),
    }


def _sampling(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling parameters that inspect knows by the same meaning."""
    names = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "max_new_tokens": "max_tokens"}
    settings = meta.get("settings") or {}
    return {theirs: settings[ours] for ours, theirs in names.items() if isinstance(settings.get(ours), int | float)}


def _results(score: TaskScore) -> dict[str, Any]:
    estimate = score.estimate
    numbers = {"accuracy": estimate.mean, "stderr": estimate.error, "pass@k": score.pass_at_k, "maj@k": score.maj_at_k}
    metrics = _metrics(numbers) | _metrics({name: metric.mean for name, metric in score.metrics.items()})
    return {
        "total_samples": score.answers + score.failed,
        "completed_samples": score.answers,
        "scores": [
            {
                "name": "spot",
                "scorer": "spot",
                "reducer": "mean",
                "scored_samples": estimate.problems,
                "unscored_samples": 0,
                "params": {},
                "metrics": metrics,
            }
        ],
    }


def _metrics(numbers: Mapping[str, float | None]) -> dict[str, Any]:
    return {name: {"name": name, "value": value, "params": {}} for name, value in numbers.items() if value is not None}


def _usage(tokens: int) -> dict[str, int]:
    return {"input_tokens": 0, "output_tokens": tokens, "total_tokens": tokens}


def _sample(row: Score, model: str) -> dict[str, Any]:
    answer = {"role": "assistant", "content": row.response, "source": "generate", "model": model}
    prompt = [*_messages(row.messages)]
    extra = row.model_extra or {}
    tokens = extra.get("tokens")
    usage = _usage(tokens) if isinstance(tokens, int) else None
    facts = {"verdict": row.verdict, "source": row.source, "metrics": extra.get("metrics")}
    return {
        "id": row.id,
        "epoch": row.trial + 1,
        "input": prompt if isinstance(row.prompt, list) else row.prompt,
        "target": row.answer or "",
        "messages": [*prompt, answer],
        "output": {
            "model": model,
            "choices": [{"message": answer, "stop_reason": _STOPS[row.finish_reason]}],
            "completion": row.response,
            "usage": usage,
        },
        "scores": {"spot": {"value": _VALUES[row.verdict], "answer": row.extracted, "explanation": row.reason}},
        "metadata": {name: value for name, value in facts.items() if value is not None},
        "store": {},
        "events": [],
        "model_usage": {model: usage} if usage else {},
        "attachments": {},
    }


def _messages(messages: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    for message in messages:
        yield {"role": _ROLES.get(message["role"], "user"), "content": message["content"]}
