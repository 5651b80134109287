"""pairs -> the hub: what is uploaded is shown, then asked, then committed at once.

spot push data.jsonl --to my-org/my-pairs
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spotcli import files
from spotcli.console import say
from spotcli.errors import UserError
from spotcli.publishing.card import card
from spotcli.publishing.hub import check_name, upload
from spotcli.publishing.selection import select_pairs, select_samples


@dataclass(frozen=True)
class PushSummary:
    """What was uploaded, or would be."""

    dataset: str
    visibility: str
    """Of a dataset that is created; that of an existing one is not changed."""
    files: dict[str, str]
    """Name -> rows and size."""
    left_out: int
    """Pairs that a reviewer rejected."""
    edited: int
    """Pairs with a reviewer's correction."""
    card: str | None = None
    """The file of the card, of a dry run."""
    url: str | None = None
    """Where the dataset is; null if nothing was uploaded."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Target:
    """Where pairs are uploaded, and how."""

    name: str
    """ORG/NAME."""
    public: bool = False
    licence: str | None = None
    dry_run: bool = False
    """Write the card beside the pairs; upload nothing."""


def push(
    data: Path, target: Target, *, samples: Path | None = None, agreed: Callable[[PushSummary], bool]
) -> PushSummary:
    """Upload pairs with a card, and perhaps their samples.

    Args:
        data: the pairs; their decisions and their meta file are beside them.
        target: where they are uploaded.
        samples: the samples, uploaded too.
        agreed: shows the summary and returns whether to upload.

    Raises:
        DataError: an invalid row, or rows that must not be published.
        UserError: an invalid name, or the hub refuses the upload.
        Unfinished: the hub cannot be reached.
    """
    check_name(target.name)
    pairs = select_pairs(data)
    answers = select_samples(samples) if samples else None
    text = card(target.name, pairs, answers, target.licence)
    contents = {"README.md": text.encode(), "data.jsonl": pairs.content}
    sizes = {"README.md": _size(text.encode()), "data.jsonl": f"{len(pairs.lines):,} rows, {_size(pairs.content)}"}
    if answers:
        contents["samples.jsonl"] = answers.content
        sizes["samples.jsonl"] = f"{len(answers.lines):,} rows, {_size(answers.content)}"
    visibility = "public" if target.public else "private"
    summary = PushSummary(target.name, visibility, sizes, pairs.rejected, pairs.edited)
    if target.dry_run:
        path = data.with_name(f"{data.stem}.card.md")
        files.replace(path, [text.encode()])
        say(f"{path}: card written; nothing is uploaded")
        return PushSummary(**asdict(summary) | {"card": str(path)})
    if not agreed(summary):
        raise UserError("nothing was uploaded", where=target.name, cure="answer y, or use --yes")
    url = upload(target.name, contents, public=target.public, message=f"Upload {len(pairs.lines)} pairs with spot")
    return PushSummary(**asdict(summary) | {"url": url})


def _size(content: bytes) -> str:
    return f"{len(content) / 1e6:.1f} MB" if len(content) >= 1e5 else f"{len(content) / 1e3:.1f} kB"
