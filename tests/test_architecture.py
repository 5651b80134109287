"""The rules of the house, read off the imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "spotcli"
FILES = sorted(SOURCE.rglob("*.py"))
HEAVY = {
    "torch",
    "transformers",
    "vllm",
    "litellm",
    "datasets",
    "deepspeed",
    "peft",
    "bitsandbytes",
    "accelerate",
    "sympy",
    "math_verify",
}


def name_of(path: Path) -> str:
    return ".".join(("spotcli", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")


def imports(path: Path, *, top_level: bool = False) -> Iterator[str]:
    """Modules that a file imports; only those that run when it is imported, if asked for."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if not top_level else (node for node in tree.body)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def in_package(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize("path", sorted((SOURCE / "core").rglob("*.py")), ids=name_of)
def test_core_knows_only_records_and_errors(path: Path) -> None:
    allowed = ("spotcli.core", "spotcli.records", "spotcli.errors")
    ours = [name for name in imports(path) if in_package(name, "spotcli")]
    assert [name for name in ours if not any(in_package(name, package) for package in allowed)] == []


@pytest.mark.parametrize("path", sorted((SOURCE / "stages").rglob("*.py")), ids=name_of)
def test_no_stage_imports_another(path: Path) -> None:
    stages = {"sample", "rectify", "review", "train", "evaluate"} - {path.stem}
    named = [name for name in imports(path) if in_package(name, "spotcli.stages")]
    assert [name for name in named if name.split(".")[2] in stages] == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_imports_the_command_line(path: Path) -> None:
    if path.name != "__main__.py":
        assert [name for name in imports(path) if in_package(name, "spotcli.cli")] == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_heavy_packages_stay_inside_what_needs_them(path: Path) -> None:
    # The losses and what they stand on are torch through and through; the train stage imports them in its body.
    torch_modules = {"spotcli.core.loss"} | {
        f"spotcli.core.forward.{name}"
        for name in ("logps", "shared_attention", "rounded_operands", "packing", "batches")
    }
    torch_modules.add("spotcli.training.trainer")
    # The grading worker is a process of its own, which exists to load sympy.
    if name_of(path) in {"spotcli.grading.algebra.sympy_compare", "spotcli.grading.algebra.worker"}:
        return
    heavy = {name.split(".")[0] for name in imports(path, top_level=True)} & HEAVY
    assert heavy <= ({"torch", "transformers"} if name_of(path) in torch_modules else set())


def test_no_module_shadows_the_standard_library() -> None:
    taken = {"inspect", "types", "tokenize", "select", "signal", "queue", "json"}
    assert [path for path in FILES if path.stem in taken] == []
