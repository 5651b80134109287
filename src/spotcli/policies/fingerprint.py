"""Identify a model's weights, so that results of other weights under the same name are not reused."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from spotcli import jsonl


@dataclass(frozen=True)
class FingerprintFormat:
    """Which files of a model folder are hashed, and how the digests are combined."""

    files: re.Pattern[str]
    """Names of the files, matched as a whole."""
    entry: str
    """What is hashed for each file."""
    digits: int


REFERENCE = FingerprintFormat(re.compile(r"config\.json|adapter_config\.json|.+\.(safetensors|bin)"), "{}:{};", 64)
"""For log-probabilities: they depend on the configuration and the weights."""
SCORES = FingerprintFormat(
    re.compile(r"(config|adapter_config|generation_config|model|adapter_model).*\.(json|safetensors)"), "{}:{}\n", 16
)
"""For scores. Both formats stay as they are, because files on disk contain their digests."""


def fingerprint(model: str, form: FingerprintFormat = REFERENCE) -> str:
    """What a policy's weights are: the SHA-256 of a folder's files, or the commit of a hub model.

    Args:
        model: a folder or a hub id, as ``models.resolve`` returns it.
        form: the files and the format of the digest.
    """
    folder = Path(model)
    if not folder.is_dir():
        from transformers.utils.hub import cached_file

        # The path of a cached file is .../snapshots/COMMIT/config.json.
        config = cached_file(model, "config.json")
        return Path(config).parent.name if config else model
    return combined(weight_digests(folder, form), form)


def weight_digests(folder: Path, form: FingerprintFormat = REFERENCE) -> dict[str, str]:
    """The SHA-256 of each file of a folder's weights and their configuration, in the order of their names."""
    paths = [path for path in sorted(folder.iterdir()) if form.files.fullmatch(path.name)]
    return {path.name: digest for path, digest in zip(paths, jsonl.digests(paths), strict=True)}


def combined(digests: Mapping[str, str], form: FingerprintFormat = REFERENCE) -> str:
    """The fingerprint of weights whose files have these digests."""
    total = hashlib.sha256()
    for name, digest in digests.items():
        total.update(form.entry.format(name, digest).encode())
    return total.hexdigest()[: form.digits]
