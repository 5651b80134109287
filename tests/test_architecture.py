"""The rules of the house, checked on the imports of every source file.

docs/architecture.md explains them. An import inside a function or under ``TYPE_CHECKING`` counts like any other.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "spotcli"
FILES = sorted(SOURCE.rglob("*.py"))

WING_OF = {
    "sample": "sampling",
    "rectify": "repair",
    "review": "inspection",
    "train": "training",
    "evaluate": "evaluation",
}
"""Stage -> the wing that it alone imports."""

GUESTS = {
    ("stages.sample", "evaluation.held_out"): "decontamination compares problems with the held-out ones",
    ("receipts.judgements", "repair.judge"): "no file keeps the judgement of a reply: the same code judges it again",
    ("receipts.judgements", "repair.cases"): "the digest that a reply names its wrong answer by",
    ("receipts.trace", "training.replay"): "no file keeps the rows of a training step: the sampler gives them again",
}
"""Imports of a wing by something else than its stage, each with its reason."""

STAGE_CALLERS = ("stage_commands", "tool_commands", "run", "plan", "api", "__init__")
"""Modules that import stages: the commands, all stages in order, their plan, and the Python API, which the package
exports."""

GROUND = {
    "records",
    "errors",
    "console",
    "files",
    "jsonl",
    "plugins",
    "dataset_lines",
    "recipe",
    "recipe_keys",
    "redaction",
    "work_time",
}
"""Top-level modules that any room may import."""

ROOMS = {
    "core": {"core", "records", "errors"},
    "grading": {"grading", "records", "errors"},
    "problems": {"problems", "grading"} | GROUND,
    "providers": {"providers"} | GROUND,
    "policies": {"policies", "providers", "interrupts", "core"} | GROUND,
    "oracles": {"oracles", "providers", "grading", "core"} | GROUND,
    "runs": {"runs", "html_pages", "locks", "outputs", "core"} | GROUND,
    "publishing": {"publishing", "decisions", "outputs"} | GROUND | {"__init__"},
    "templates": {"templates", "problems", "policies", "oracles", "providers", "recipe_yaml"} | GROUND,
    "exporting": {"exporting", "grading", "problems", "policies", "outputs"} | GROUND | {"__init__"},
    "receipts": {
        *("receipts", "repair", "training", "policies", "problems", "core"),
        *("decisions", "outputs", "reviews", "reply_entries", "recipe_yaml", "score_changes"),
    }
    | GROUND,
    "answering": {"answering", "policies", "grading", "outputs", "appender", "interrupts"} | GROUND,
}
"""Room -> what it may import of the package."""

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
    "textual",
}

TORCH = {"core.loss", "core.drift", "core.similarity", "training.step_loss", "training.trainer"}
"""Modules beside core/forward that are torch through and through; a stage imports them inside a function."""

TEXTUAL = "inspection.app."
"""Start of the names of modules that are the interactive viewer; the stage imports them inside a function."""

SYMPY = {
    "grading.algebra.points",
    "grading.algebra.relations",
    "grading.algebra.sympy_compare",
    "grading.algebra.worker",
}
"""Modules that run only in the grading workers, which exist to load sympy."""

SIDE_EFFECTS = {
    "asyncio",
    "glob",
    "http",
    "httpx",
    "io",
    "multiprocessing",
    "os",
    "pathlib",
    "requests",
    "shutil",
    "signal",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "urllib",
}
"""Modules that start processes or open files; core imports none of them."""


def name_of(path: Path) -> str:
    """The dotted name inside the package: ``core.loss``; of a package's ``__init__``, the package."""
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in FILES}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imported_names(tree: ast.Module, *, top_level: bool = False) -> Iterator[str]:
    """Dotted names that a file imports; with ``top_level``, only those that run when the file is imported."""
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(tree: ast.Module) -> set[str]:
    """Modules of the package that a file imports, by their names inside it."""
    imports = set()
    for dotted in imported_names(tree):
        name = dotted.removeprefix("spotcli.")
        if name == dotted:
            continue
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        if name:
            imports.add(name)
    return imports


GRAPH = {name: own_imports(tree) - {name} for name, tree in TREES.items()}
"""Module -> the modules of the package that it imports."""


def room_of(name: str) -> str:
    return name.partition(".")[0]


# Each rule takes one import and returns what is wrong with it, or nothing.


def room_rule(importer: str, imported: str) -> str | None:
    allowed = ROOMS.get(room_of(importer))
    if allowed is not None and room_of(imported) not in allowed:
        return f"{importer} imports {imported}: {room_of(importer)} imports only {', '.join(sorted(allowed))}"
    return None


def wing_rule(importer: str, imported: str) -> str | None:
    wing, room = room_of(imported), room_of(importer)
    if wing not in WING_OF.values() or room == wing or (importer, imported) in GUESTS:
        return None
    stage = importer.removeprefix("stages.")
    if room == "stages" and WING_OF[stage] == wing:
        return None
    return f"{importer} imports {imported}: only the stage of a wing imports it"


def stage_rule(importer: str, imported: str) -> str | None:
    if room_of(imported) == "stages" and importer not in STAGE_CALLERS:
        return f"{importer} imports {imported}: only {', '.join(STAGE_CALLERS)} import stages"
    return None


def entry_rule(importer: str, imported: str) -> str | None:
    if imported == "cli" and importer != "__main__":
        return f"{importer} imports the command line"
    return None


RULES = (room_rule, wing_rule, stage_rule, entry_rule)


def breaches(graph: dict[str, set[str]]) -> list[str]:
    """Every import that breaks a rule."""
    return [
        message
        for importer, imports in sorted(graph.items())
        for imported in sorted(imports)
        for rule in RULES
        if (message := rule(importer, imported)) is not None
    ]


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """One import circle, if the graph has any."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_import_keeps_the_rules() -> None:
    assert breaches(GRAPH) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert cycle(GRAPH) == []


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("templates.writing", "evaluation.tasks"),
        ("core.loss", "jsonl"),
        ("core.edits", "grading"),
        ("providers.retry", "oracles"),
        ("providers.litellm", "policies"),
        ("problems.sources", "evaluation.tasks"),
        ("grading", "core.edits"),
        ("oracles.human", "policies.models"),
        ("policies.api", "oracles.model"),
        ("answering.loop", "sampling.problem_set"),
        ("policies.api", "answering.loop"),
        ("sampling.problem_set", "evaluation.held_out"),
        ("training.trainer", "repair.judge"),
        ("stages.train", "repair.judge"),
        ("stages.train", "stages.sample"),
        ("training.launcher", "stages.train"),
        ("tables", "evaluation.scores"),
        ("run", "training.run_folder"),
        ("run", "cli"),
    ],
)
def test_a_broken_rule_is_found(importer: str, imported: str) -> None:
    assert breaches(GRAPH | {importer: {imported}})


def test_a_circle_is_found() -> None:
    assert set(cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == {"a", "b", "c"}


def side_effects(tree: ast.Module) -> list[str]:
    """What in a file starts a process or opens a file."""
    modules = [name for name in imported_names(tree) if name.partition(".")[0] in SIDE_EFFECTS]
    calls = [
        ast.unparse(node.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and re.search(r"(^|\.)(open|read_text|write_text|Popen)$", ast.unparse(node.func))
    ]
    return modules + calls


@pytest.mark.parametrize("name", [name for name in MODULES if room_of(name) == "core"])
def test_core_starts_no_process_and_opens_no_file(name: str) -> None:
    assert side_effects(TREES[name]) == []


@pytest.mark.parametrize(
    "code", ["import subprocess", "def f():\n    from pathlib import Path", "open('x')", "path.read_text()"]
)
def test_a_side_effect_is_found(code: str) -> None:
    assert side_effects(ast.parse(code))


def test_there_are_five_stages_and_each_is_short() -> None:
    stages = {
        path.stem: len(path.read_text(encoding="utf-8").splitlines())
        for path in (SOURCE / "stages").glob("*")
        if path.suffix == ".py" and path.stem != "__init__"
    }
    assert set(stages) == set(WING_OF)
    assert {stage: lines for stage, lines in stages.items() if lines > 260} == {}


@pytest.mark.parametrize("name", MODULES)
def test_heavy_packages_are_imported_where_they_are_needed(name: str) -> None:
    heavy = {dotted.partition(".")[0] for dotted in imported_names(TREES[name], top_level=True)} & HEAVY
    if name in SYMPY:
        allowed = {"sympy", "math_verify"}
    elif name in TORCH or name.startswith("core.forward."):
        allowed = {"torch", "transformers"}
    elif name.startswith(TEXTUAL):
        allowed = {"textual"}
    else:
        allowed = set()
    assert heavy <= allowed


def test_no_module_shadows_the_standard_library() -> None:
    # A file that is launched by its path comes before the standard library on the search path.
    taken = {"inspect", "types", "tokenize", "select", "signal", "queue", "json"}
    assert [name for name in MODULES if name.rpartition(".")[2] in taken] == []


def test_a_small_file_does_not_serve_a_single_neighbour() -> None:
    # A neighbour is a file of the same folder: what only it needs belongs in it. Tasks are found by their names.
    importers = {name: {other for other, imports in GRAPH.items() if name in imports} for name in MODULES}
    lonely = {
        name: only
        for name, path in MODULES.items()
        if len(path.read_text(encoding="utf-8").splitlines()) < 60 and path.stem not in ("__init__", "__main__")
        for only in importers[name]
        if len(importers[name]) == 1 and MODULES[only].parent == path.parent and path.parent != SOURCE
    }
    assert lonely == {}


def test_tests_mirror_the_source() -> None:
    folders = {path.parent.relative_to(SOURCE) for path in FILES if path.parent != SOURCE}
    tested = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")} - {Path()}
    assert tested - folders == set()
    assert folders - tested == set()


def untrusted_code(tree: ast.Module) -> list[str]:
    """What in a file could run code that comes with data or with a model."""
    lines = [f"imports {name}" for name in imported_names(tree) if name.partition(".")[0] in RUNS_CODE]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if called in ("eval", "exec", "compile", "__import__", "yaml.load", "torch.load"):
            lines.append(f"calls {called}")
        if keywords.get("trust_remote_code", "False") != "False":
            lines.append(f"{called} trusts remote code")
        if called == "from_pretrained" and "trust_remote_code" not in keywords:
            lines.append(f"{called} without trust_remote_code=False")
    return lines


RUNS_CODE = {"pickle", "cPickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}
"""Modules that run code when they read a file."""


@pytest.mark.parametrize("name", MODULES)
def test_no_code_from_data_or_a_model_is_run(name: str) -> None:
    assert untrusted_code(TREES[name]) == []


@pytest.mark.parametrize(
    "code",
    ["import pickle", "eval(text)", "torch.load(path)", "load(path, trust_remote_code=True)", "from_pretrained(path)"],
)
def test_code_from_data_is_found(code: str) -> None:
    assert untrusted_code(ast.parse(code))
