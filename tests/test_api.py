"""``import spotcli``: the commands as functions, without side effects on the program that calls them."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.testing import CliRunner

import spotcli
from spotcli import api, interrupts
from spotcli.cli import app
from spotcli.recipe import Recipe
from spotcli.recipe_yaml import load
from spotcli.records import UngradedSample
from tests.conftest import write_rows

DOC = Path(__file__).parent.parent / "docs" / "python.md"
WRONG = [
    {
        "id": f"p{n}",
        "prompt": f"{n} * 8 + 5",
        "answer": str(n * 8 + 5),
        "response": f"{n} * 8 = {n * 8}\n{n * 8} + 5 = {n * 8 + 6}\n\\boxed{{{n * 8 + 6}}}",
        "verdict": "wrong",
    }
    for n in range(2, 10)
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "samples.jsonl", WRONG)
    return tmp_path


@pytest.fixture(autouse=True)
def unchanged_process(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """A call leaves signal handlers and the working directory as they were, and prints nothing."""
    handlers = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    yield
    assert {number: signal.getsignal(number) for number in interrupts.SIGNALS} == handlers
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_the_import_loads_no_other_module(tmp_path: Path) -> None:
    probe = (
        "import sys; before = {*sys.modules}\n"
        "import spotcli\n"
        "new = {name for name in {*sys.modules} - before if name.partition('.')[0] not in sys.stdlib_module_names}\n"
        "spotcli.rectify, spotcli.grade, spotcli.SpotError, spotcli.Pair\n"
        "heavy = {'torch', 'transformers', 'litellm', 'datasets', 'sympy', 'textual', 'rich'} & {*sys.modules}\n"
        "print(new, heavy or '')"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.split() == ["{'spotcli'}"]


def test_every_public_name_is_there_and_listed() -> None:
    assert {name for name in spotcli.__all__ if getattr(spotcli, name) is None} == set()
    assert set(spotcli.__all__) <= set(dir(spotcli))
    assert spotcli._MODULE_OF.keys() | {"__version__"} == set(spotcli.__all__)
    assert (Path(spotcli.__file__).parent / "py.typed").exists()
    with pytest.raises(AttributeError, match="no attribute 'smaple'"):
        _ = spotcli.smaple


@pytest.mark.parametrize("name", ["sample", "rectify", "train", "evaluate"])
def test_a_signature_has_every_key_of_the_section(name: str) -> None:
    section = {"evaluate": "eval"}.get(name, name)
    keys = getattr(Recipe(), section).__class__.model_fields
    parameters = inspect.signature(getattr(spotcli, name)).parameters
    assert keys.keys() | {"recipe", "folder", "fresh", "progress", "seed"} <= parameters.keys()
    documented = re.findall(r"^        (\w+):", inspect.getdoc(getattr(api, name)) or "", re.MULTILINE)
    assert not documented or set(documented) <= parameters.keys() | {"settings"}


def test_a_call_does_what_the_command_does(folder: Path) -> None:
    summary = spotcli.rectify(samples="samples.jsonl", oracle="symbolic", output="pairs.jsonl", gamma=0.5)
    arguments = ["rectify", "samples.jsonl", "--oracle", "symbolic", "-o", "command.jsonl", "--gamma", "0.5", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert summary.pairs == 8
    shown = json.loads(done.stdout)
    own = json.loads(json.dumps(summary.as_dict()))
    assert {key for key in shown if shown[key] != own[key]} <= {"path", "output", "seconds"}
    assert (folder / "pairs.jsonl").read_bytes() == (folder / "command.jsonl").read_bytes()
    # The second call resumes, and what would mix two experiments is refused.
    assert spotcli.rectify("samples.jsonl", oracle="symbolic", output="pairs.jsonl").pairs == 8
    with pytest.raises(spotcli.UserError) as caught:
        spotcli.rectify("samples.jsonl", mode="self", output="pairs.jsonl")
    assert caught.value.where == "pairs.jsonl"
    assert caught.value.cure


@pytest.mark.parametrize(
    ("call", "error", "where", "text"),
    [
        (lambda: spotcli.rectify("nowhere.jsonl", oracle="symbolic"), spotcli.UserError, "nowhere.jsonl", "not found"),
        (lambda: spotcli.rectify(gama=0.5), spotcli.RecipeError, "argument gama", "did you mean 'gamma'"),
        (lambda: spotcli.rectify(gamma=5), spotcli.RecipeError, "argument gamma", "less than or equal to 1, got 5"),
        (lambda: spotcli.rectify(recipe="nowhere.yaml"), spotcli.RecipeError, "nowhere.yaml", "recipe not found"),
        (lambda: spotcli.sample("builtin:arithmetic"), spotcli.RecipeError, "model", "a model is required"),
        (lambda: spotcli.train(model="nowhere"), spotcli.UserError, "nowhere", ""),
        (lambda: spotcli.evaluate("nowhere", tasks=["arithmetik"]), spotcli.UserError, "", "did you mean 'arithmetic'"),
        (lambda: spotcli.review("samples.jsonl", id="p22"), spotcli.UserError, "samples.jsonl", "p2"),
        (lambda: spotcli.read("nowhere.jsonl"), spotcli.UserError, "nowhere.jsonl", "not found"),
    ],
)
def test_an_error_has_a_place_and_a_cure(
    call: Any, error: type[spotcli.SpotError], where: str, text: str, folder: Path
) -> None:
    with pytest.raises(error) as caught:
        call()
    assert where in (caught.value.where or "")
    assert text in str(caught.value)


def test_arguments_come_before_the_recipe_which_stays_as_it_was(folder: Path) -> None:
    recipe = load(None, ["rectify.oracle=human", "rectify.gamma=0.2"])
    assert api._recipe("rectify", recipe, {"oracle": "symbolic"}, {"max_cost": None}).rectify.gamma == 0.2
    recipe.train.beta = 0.3  # the section was not in the file
    changed = api._recipe("train", recipe, {}, {"learning_rate": 1e-5, "seed": 3, "lora": {"r": 16}})
    assert (changed.train.beta, changed.seed, changed.train.training_arguments) == (0.3, 3, {"learning_rate": 1e-5})
    assert (recipe.rectify.oracle, recipe.seed, recipe.train.lora) == ("human", 0, None)
    (folder / "recipe.yaml").write_text("rectify: {oracle: symbolic, gamma: 0.001, samples: samples.jsonl}")
    assert spotcli.rectify(recipe="recipe.yaml", output="few.jsonl").pairs == 0
    assert spotcli.rectify(recipe={"rectify": {"gamma": 0.9}}, oracle="symbolic", output="all.jsonl").pairs == 8


def test_rows_are_read_as_records(folder: Path) -> None:
    spotcli.rectify(oracle="symbolic")
    samples, pairs = spotcli.read("samples.jsonl"), spotcli.read("data.jsonl", spotcli.Pair)
    assert {type(row) for row in samples} == {spotcli.Sample}
    assert pairs[0].chosen == "2 * 8 = 16\n16 + 5 = 21\n\\boxed{21}"
    # A decision of a reviewer is applied.
    event = {"event": "decision", "time": "", "action": "a", "key": ["p2", 0], "decision": "reject"}
    from spotcli.decisions import text_digest

    write_rows(folder / "data.review.jsonl", [event | {"digest": text_digest(pairs[0])}])
    assert [pair.review for pair in spotcli.read("data.jsonl", spotcli.Pair)][:2] == ["reject", None]
    write_rows(folder / "problems.jsonl", [{"question": "1 + 1?", "answer": 2}])
    (problem,) = spotcli.read("problems.jsonl")
    assert (type(problem), problem.prompt, problem.answer) == (spotcli.Problem, "1 + 1?", "2")
    write_rows(folder / "answers.jsonl", [{"prompt": "1 + 1?", "response": "2"}])
    assert [type(row) for row in spotcli.read("answers.jsonl")] == [UngradedSample]
    assert set(get_args(api.AnyRow)) == {*api._RECORDS.values()}


def test_a_call_works_in_a_thread_and_while_an_event_loop_runs(folder: Path) -> None:
    results: list[int] = []

    def work() -> None:
        results.append(spotcli.rectify(oracle="symbolic", output="thread.jsonl").pairs)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    async def cell() -> int:
        return spotcli.rectify(oracle="symbolic", output="loop.jsonl").pairs

    async def beside() -> int:
        return await asyncio.to_thread(lambda: spotcli.rectify(oracle="symbolic", output="beside.jsonl").pairs)

    assert [*results, asyncio.run(cell()), asyncio.run(beside())] == [8, 8, 8]

    async def failing() -> None:
        spotcli.rectify("nowhere.jsonl", oracle="symbolic")

    with pytest.raises(spotcli.UserError, match="not found"):
        asyncio.run(failing())


def test_ctrl_c_in_a_notebook_reaches_the_work() -> None:
    """The first interrupt stops, the second drops, and work without a handler gets ``KeyboardInterrupt``."""
    calls: list[str] = []
    entered, dropped = threading.Event(), threading.Event()

    def work() -> str:
        def drop() -> None:
            calls.append("drop")
            dropped.set()

        with interrupts.interruptible(lambda: calls.append("stop"), notice=lambda: "stopping", drop=drop):
            entered.set()
            assert dropped.wait(10)
        return "done"

    def press() -> None:
        entered.wait(10)
        for count in (1, 2):
            os.kill(os.getpid(), signal.SIGINT)
            while len(calls) < count:
                pass

    async def cell() -> str:
        threading.Thread(target=press, daemon=True).start()
        return api._call(work, False)

    # In a notebook, and unlike in asyncio.run, Ctrl-C raises KeyboardInterrupt in the cell.
    loop = asyncio.new_event_loop()
    try:
        assert loop.run_until_complete(cell()) == "done"
        assert calls == ["stop", "drop"]

        async def endless() -> None:
            threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()

            def spin() -> None:
                while True:
                    dropped.wait(0.01)

            api._call(spin, False)

        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(endless())
    finally:
        loop.close()


def test_progress_is_printed_when_asked(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    spotcli.rectify(oracle="symbolic")
    assert capfd.readouterr() == ("", "")
    spotcli.rectify(oracle="symbolic", progress=True)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "8 replies are kept" in printed.err
    spotcli.review(show=True, limit=1)
    assert "[-" in capfd.readouterr().out


def test_grade_has_a_verdict_and_a_reason() -> None:
    assert spotcli.grade("so \\boxed{\\frac{16}{25}}", "0.64").verdict == "right"
    undecided = spotcli.grade("I do not know.", "0.64")
    assert undecided.verdict == "undecided"
    assert undecided.reason


def test_the_page_of_the_docs_runs(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    capfd.readouterr()  # of the fixture that writes the model
    blocks = re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        code = block.replace("builtin:smollm2-135m", str(tiny_model))
        exec(compile(code, str(DOC), "exec"), names)
        if "spotcli.sample(" in block:
            # A random model makes no slips that an oracle could repair.
            write_rows(tmp_path / "samples.jsonl", WRONG)
    assert {"samples", "pairs", "checkpoint", "scores"} <= names.keys()
    printed = capfd.readouterr()
    assert printed.err == ""
    assert "8 pairs; wrong answers without a pair: {}" in printed.out
    assert (tmp_path / "pairs.html").exists()
