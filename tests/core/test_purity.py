"""The package `core` opens no file, starts no process and uses no network."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import spotcli.core

CORE = Path(spotcli.core.__file__).parent
IMPURE = {"asyncio", "httpx", "io", "multiprocessing", "os", "pathlib", "shutil", "socket", "subprocess", "tempfile"}


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: str(path.relative_to(CORE)))
def test_core_uses_no_files_and_no_processes(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    modules = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module.split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    calls = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert modules & IMPURE == set()
    assert "open" not in calls
