"""Process settings that loading a model makes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
SHOW = """
from spotcli.policies import models
import torch
tensor = torch.ones(64 << 20, dtype=torch.uint8)
rows = open("/proc/self/smaps_rollup").read().splitlines()
print(next(row.split()[1] for row in rows if row.startswith("AnonHugePages")))
"""


@pytest.mark.skipif(
    not PAGES.exists() or "[never]" in PAGES.read_text(), reason="this system has no huge pages on request"
)
@pytest.mark.parametrize(("setting", "least", "most"), [(None, 32 << 10, 1 << 20), ("0", 0, 2 << 10)])
def test_large_tensors_use_huge_pages_unless_the_user_disables_them(setting: str | None, least: int, most: int) -> None:
    if setting is not None and "[always]" in PAGES.read_text():
        pytest.skip("this system uses huge pages for every process")
    env = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    env |= {} if setting is None else {"THP_MEM_ALLOC_ENABLE": setting}
    done = subprocess.run([sys.executable, "-c", SHOW], env=env, capture_output=True, text=True, check=True)
    # KiB, of the tensor's 65,536; the kernel may not have enough free huge pages.
    assert least <= int(done.stdout) <= most
