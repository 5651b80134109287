"""``spot why CHECKPOINT``: what is behind a model, and whether those files have changed since.

checkpoint <- loss, settings, seed, versions <- pairs <- samples <- problems; and the model that it started from
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from spotcli import decisions, jsonl, outputs
from spotcli.decisions import STALE, AppliedDecisions
from spotcli.errors import SpotError, UserError
from spotcli.policies import models
from spotcli.policies.fingerprint import REFERENCE, combined, fingerprint, weight_digests
from spotcli.receipts.run_files import TRAINED, meta_of, run_recipe
from spotcli.recipe import Recipe
from spotcli.records import Pair

Fields = dict[str, Any]
State = Literal["unchanged", "changed", "missing", "not recorded", "not checked"]
"""Of a file or model, compared with its recorded digest."""
_MOST_PARENTS = 8


@dataclass(frozen=True)
class Source:
    """A file or model that the checkpoint depends on."""

    name: str
    """``weights``, ``data``, ``review``, ``samples``, ``problems``, ``model`` or ``checkpoint``."""
    path: str
    state: State
    recorded: str | None = None
    """The digest when it was used."""
    current: str | None = None
    """Its digest now."""
    facts: Fields = field(default_factory=dict)


@dataclass(frozen=True)
class Why:
    """What is behind a model."""

    checkpoint: str
    complete: bool
    objective: str
    started: str | None
    finished: str | None
    settings: Fields
    """Everything that the weights depend on, besides the inputs."""
    versions: Fields
    sources: list[Source]
    chat_template: str | None
    """SHA-256 of the chat template in the folder of the model; None if there is none."""
    seeds: Fields
    """Of sampling and training."""
    counts: Fields
    """Rows, pairs, dropped rows and decisions of reviewers, of the training."""
    results: Fields
    """The first loss and the last metrics."""
    parents: list[Fields]
    """The models that it started from, the nearest first, each with how it was trained."""

    @property
    def changed(self) -> list[Source]:
        """What is no longer as it was used or made."""
        return [source for source in self.sources if source.state in ("changed", "missing")]

    def as_dict(self) -> Fields:
        return {**asdict(self), "changed": [source.name for source in self.changed]}


def why(checkpoint: Path) -> Why:
    """What is behind a model that ``spot train`` made.

    Args:
        checkpoint: its folder, or that of a checkpoint during training inside of it.

    Raises:
        UserError: the folder does not exist, or no ``spot train`` made it.
        DataError: its spot-train.json is damaged.
    """
    folder = _model_folder(checkpoint)
    meta = _meta(folder)
    inputs, settings, summary = (meta.get(name) or {} for name in ("inputs", "settings", "summary"))
    known = run_recipe(folder)
    sources, seeds = _sources(inputs, *known) if known else ([_lost_data(inputs)], {})
    sources = [*_weights(checkpoint, meta), *_state_of_checkpoint(checkpoint), *sources, _model(inputs)]
    counted = ("rows", "pairs", "dropped", "reviewed", "audit", "emitted", "steps", "epochs", "batch_size")
    return Why(
        checkpoint=str(checkpoint),
        complete=bool(meta.get("complete")),
        objective=str(settings.get("objective", "unknown")),
        started=meta.get("started"),
        finished=meta.get("finished"),
        settings=settings,
        versions=meta.get("versions") or {},
        sources=sources,
        chat_template=_chat_template(folder),
        seeds={"train": settings.get("seed"), **seeds},
        counts={name: summary[name] for name in counted if name in summary},
        results={name: summary[name] for name in ("first_loss", "final", "saved") if summary.get(name)},
        parents=_parents(inputs),
    )


def _model_folder(checkpoint: Path) -> Path:
    """The folder that has spot-train.json.

    Raises:
        UserError: there is none.
    """
    if not checkpoint.is_dir():
        found = "folder not found" if not checkpoint.exists() else "expected the folder of a model, got a file"
        raise UserError(found, where=str(checkpoint), cure="name the folder of a trained model")
    for folder in (checkpoint, checkpoint.resolve().parent):
        if (folder / TRAINED).is_file():
            return folder
    inner = sorted(str(path.parent) for path in checkpoint.glob("*/spot-train.json"))
    cure = f"name {' or '.join(inner)}" if inner else "name the folder that `spot train` wrote"
    raise UserError(f"not a model of `spot train`: the folder has no {TRAINED}", where=str(checkpoint), cure=cure)


def _meta(folder: Path) -> Fields:
    path = folder / TRAINED
    values = jsonl.read_json(path)
    types = {"settings": dict, "inputs": dict, "versions": dict, "complete": bool, "summary": dict, "weights": dict}
    outputs.check_types({name: value for name, value in values.items() if value is not None}, types, path)
    return values


def _weights(checkpoint: Path, meta: Fields) -> list[Source]:
    """The trained weights: the digest that ``spot train`` would record for a model trained from them."""
    files = weight_digests(checkpoint)
    recorded = meta.get("weights") or {}
    if (state := checkpoint / "spot-state.json").is_file():
        entries = jsonl.read_json(state).get("files") or {}
        recorded = {
            name: entry["sha256"]
            for name, entry in entries.items()
            if REFERENCE.files.fullmatch(name) and isinstance(entry, Mapping) and isinstance(entry.get("sha256"), str)
        }
    if not recorded:
        unknown = Source("weights", str(checkpoint), "not recorded", None, combined(files), {"files": files})
        return [unknown] if files else []
    changed = sorted(name for name in recorded.keys() | files.keys() if recorded.get(name) != files.get(name))
    facts: Fields = {"files": files, **({"changed": changed} if changed else {})}
    known = combined(dict(sorted(recorded.items())))
    if not files:
        return [Source("weights", str(checkpoint), "missing", known)]
    return [Source("weights", str(checkpoint), "changed" if changed else "unchanged", known, combined(files), facts)]


def _state_of_checkpoint(checkpoint: Path) -> list[Source]:
    """Of a checkpoint during training, whether its files are as they were written."""
    path = checkpoint / "spot-state.json"
    if not path.is_file():
        return []
    entries = jsonl.read_json(path).get("files") or {}
    changed = [
        name
        for name, entry in entries.items()
        if isinstance(entry, Mapping)
        and (not (checkpoint / name).is_file() or jsonl.digest(checkpoint / name) != entry.get("sha256"))
    ]
    return [Source("checkpoint", str(checkpoint), "changed" if changed else "unchanged", facts={"changed": changed})]


def _sources(inputs: Fields, recipe: Recipe, folder: Path) -> tuple[list[Source], Fields]:
    """The files that the data came from, and the seeds that they were made with."""
    data = folder / recipe.train.data
    meta = meta_of(data)
    facts = {
        "rows": jsonl.count(data) if data.is_file() and data.suffix == ".jsonl" else None,
        "made by": meta.get("command"),
        **{name: (meta.get("settings") or {}).get(name) for name in ("oracle", "mode", "reply")},
        **{name: (meta.get("counts") or {}).get(name) for name in ("pairs", "wrong", "cost")},
        "filters": meta.get("filters"),
    }
    sources = [_file("data", data, inputs.get("data"), facts), *_review(data, inputs.get("review"))]
    origin = meta.get("samples") or {}
    if not isinstance(origin.get("path"), str):
        return sources, {}
    samples = data.parent / origin["path"]
    made = meta_of(samples)
    settings = made.get("settings") or {}
    facts = {name: settings.get(name) for name in ("model", "problems", "grader", "temperature", "top_p", "top_k")}
    facts |= {"counts": made.get("counts"), "engine": (made.get("engine") or {}).get("name")}
    sources.append(_file("samples", samples, origin.get("sha256"), facts))
    sources += [
        _file("problems", folder / name, digest, {})
        for name, digest in (made.get("inputs") or {}).items()
        if isinstance(digest, str) and (folder / name).is_file()
    ]
    return sources, {"sample": settings.get("seed")}


def _file(name: str, path: Path, recorded: object, facts: Fields) -> Source:
    facts = {key: value for key, value in facts.items() if value is not None}
    if not isinstance(recorded, str):
        return Source(name, str(path), "not recorded" if path.is_file() else "missing", facts=facts)
    if not path.is_file():
        return Source(name, str(path), "missing", recorded, facts=facts)
    current = jsonl.digest(path)
    return Source(name, str(path), "unchanged" if current == recorded else "changed", recorded, current, facts)


def _review(data: Path, recorded: object) -> list[Source]:
    """The decisions about the data: those that changed it while training, and those of now."""
    path = decisions.review_path(data)
    if recorded is None and not path.is_file():
        return []
    if not data.is_file():
        return [Source("review", str(path), "missing", _text(recorded))]
    applied = AppliedDecisions(decisions.read(data))
    reviewed: Counter[str] = Counter()
    for row in jsonl.rows(data):
        try:
            applied(Pair.model_validate(row))
        except ValueError:
            continue
    reviewed.update(applied.counts)
    current = applied.digest
    state: State = "unchanged" if current == recorded else "changed"
    stale = {"stale decisions have no effect": reviewed[STALE]} if reviewed[STALE] else {}
    return [Source("review", str(path), state, _text(recorded), current, {"decisions": dict(reviewed), **stale})]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _lost_data(inputs: Fields) -> Source:
    return Source("data", "unknown (recipe.yaml is missing or invalid)", "not checked", _text(inputs.get("data")))


def _model(inputs: Fields) -> Source:
    """The starting policy; its weights are read again if they are on this machine."""
    name, recorded = str(inputs.get("model", "unknown")), _text(inputs.get("model weights"))
    try:
        location = Path(models.resolve(name)) if name.startswith("builtin:") or Path(name).is_dir() else None
        if location is None:
            # A name of the hub: what is recorded is the commit, which names the content.
            return Source("model", name, "not checked", recorded)
        current = fingerprint(str(location))
        base = models.base_of(name)
        if base is not None:
            current = f"{current} on {fingerprint(models.resolve(base))}"
    except (SpotError, OSError):
        return Source("model", name, "missing", recorded)
    return Source("model", name, "unchanged" if current == recorded else "changed", recorded, current)


def _chat_template(folder: Path) -> str | None:
    """The digest of the template that the model is used with."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return sha256(path.read_bytes()).hexdigest()
    try:
        template = json.loads((folder / "tokenizer_config.json").read_bytes()).get("chat_template")
    except (OSError, ValueError, AttributeError):
        return None
    return sha256(template.encode()).hexdigest() if isinstance(template, str) else None


def _parents(inputs: Fields) -> list[Fields]:
    """The models that it started from, as far as spot trained them."""
    parents: list[Fields] = []
    name = inputs.get("model")
    while isinstance(name, str) and len(parents) < _MOST_PARENTS:
        trained = Path(name) / TRAINED
        if not trained.is_file():
            parents.append({"model": name})
            break
        values = jsonl.read_json(trained)
        settings, inner = values.get("settings") or {}, values.get("inputs") or {}
        parents.append(
            {
                "model": name,
                "objective": settings.get("objective"),
                "learning_rate": settings.get("learning_rate"),
                "data": inner.get("data"),
                "finished": values.get("finished"),
            }
        )
        name = inner.get("model")
    return parents
