"""``spot export``: the folder is read as TRL and verl read it, the rewards are spot's grades, and GRPO takes a step."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

import spotcli
from spotcli.cli import app
from spotcli.exporting.export import Start, export
from tests.conftest import write_rows

ROWS: list[dict[str, Any]] = [
    {"id": "a", "prompt": "1 + 1?", "answer": "2", "response": "\\boxed{3}", "verdict": "wrong", "source": "s.jsonl#1"},
    {"id": "a", "trial": 1, "prompt": "1 + 1?", "answer": "2", "response": "\\boxed{2}", "verdict": "right"},
    {"id": "b", "prompt": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Half?"}]}
    | {"answer": "0.5", "accepted_answers": ["0.5", "50 %"], "response": "?", "verdict": "undecided"},
    {"id": "c", "prompt": "Which?", "answer": "(C)", "grader": "choice", "response": "?", "verdict": "undecided"},
    {"id": "d", "prompt": "About pi?", "answer": "3.14", "error": "1e-1", "answer_type": "Numerical"}
    | {"response": "?", "verdict": "undecided"},
    {"id": "e", "prompt": "No reference", "response": "?", "verdict": "undecided"},
    {"id": "f", "prompt": "Contested", "answer": "1", "response": "?", "verdict": "undecided"},
    {"id": "g", "prompt": "Contested", "answer": "2", "response": "?", "verdict": "undecided"},
    {"id": "h", "prompt": "With a tool", "answer": "2", "tools": [{"name": "f"}], "response": "?", "verdict": "wrong"},
]
LEFT_OUT = {
    "further rows of a problem": 2,
    "no reference answer": 1,
    "same prompt with another reference answer": 1,
    "tools or other fields in the messages": 1,
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    meta = {"settings": {"grader": "math", "max_new_tokens": 12}, "engine": {"chat_template_kwargs": {"think": False}}}
    (tmp_path / "samples.meta.json").write_text(json.dumps(meta))
    return write_rows(tmp_path / "samples.jsonl", ROWS)


def module(path: Path, name: str) -> ModuleType:
    spec = spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    made = module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder as the working directory of a script, whose `reward` is imported."""
    monkeypatch.syspath_prepend(str(tmp_path / "grpo"))
    yield tmp_path / "grpo"
    sys.modules.pop("reward", None)


@pytest.mark.filterwarnings("ignore")
def test_trl_loads_the_folder_and_takes_a_step_of_grpo(source: Path, tiny_model: Path, on_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["export", str(source), "--for", "trl", "-m", str(tiny_model), "-o", str(on_path), "--json"]
    )
    assert done.exception is None, done.exception
    summary = json.loads(done.stdout)
    assert summary["left_out"] == LEFT_OUT
    assert summary["rows"] == len(ROWS) == summary["prompts"] + sum(LEFT_OUT.values())
    train = module(on_path / "train.py", "exported_train")
    assert train.SETTINGS["max_completion_length"] == 12
    assert train.SETTINGS["chat_template_kwargs"] == {"think": False}
    rewards: list[list[float | None]] = []
    given = train.reward

    def reward(**columns: Any) -> Any:
        # A random model writes no final answers: one of the two is replaced, so that there is something to learn.
        columns["completions"][0] = [{"role": "assistant", "content": f"\\boxed{{{columns['answer'][0]}}}"}]
        columns["completions"][1] = [{"role": "assistant", "content": "\\boxed{-7}"}]
        rewards.append(given(**columns))
        return rewards[-1]

    vars(train)["reward"] = reward
    trainer = train.trainer(
        max_steps=1, num_generations=2, per_device_train_batch_size=2, max_completion_length=4, use_cpu=True,
        bf16=False, report_to="none", save_strategy="no", disable_tqdm=True, logging_steps=1, shuffle_dataset=False,
        mask_truncated_completions=False,
    )  # fmt: skip
    assert trainer.train_dataset.column_names == ["prompt", "id", "answer", "problem"]
    assert [row["id"] for row in trainer.train_dataset] == ["a", "b", "c", "d"]
    trainer.train()
    assert rewards == [[1.0, 0.0]]
    (logged,) = [row for row in trainer.state.log_history if "reward" in row]
    assert logged["reward"] == pytest.approx(0.5)
    assert logged["grad_norm"] > 0


def test_rewards_are_the_grades_of_spot(source: Path, tiny_model: Path, on_path: Path) -> None:
    export(source, Start("trl", str(tiny_model)), on_path)
    reward = module(on_path / "reward.py", "exported_reward").reward
    rows = [json.loads(line) for line in (on_path / "train.jsonl").read_text().splitlines()]
    assert rows[1]["prompt"] == ROWS[2]["prompt"]
    answers: dict[str, list[tuple[str, float | None]]] = {
        "a": [("\\boxed{2.0}", 1.0), ("\\boxed{3}", 0.0), ("I do not know", None)],
        "b": [("\\boxed{\\frac{1}{2}}", 1.0), ("so it is \\boxed{50\\%}", 1.0)],
        "c": [("The answer is (C).", 1.0), ("The answer is (D).", 0.0)],
        "d": [("\\boxed{3.2}", 1.0), ("\\boxed{4}", 0.0)],
    }
    problems = [row["problem"] for row in rows for _ in answers[row["id"]]]
    texts = [text for row in rows for text, _ in answers[row["id"]]]
    expected = [value for row in rows for _, value in answers[row["id"]]]
    assert reward(completions=texts, problem=problems, trainer_state=None, answer=texts) == expected
    chats = [[{"role": "assistant", "content": text}] for text in texts]
    assert reward(completions=chats, problem=problems, prompts=texts, completion_ids=[]) == expected


def test_verl_reads_the_parquet_and_calls_the_score(source: Path, tiny_model: Path, tmp_path: Path) -> None:
    import datasets

    folder = tmp_path / "verl"
    summary = export(source, Start("verl", str(tiny_model)), folder)
    assert summary.left_out == LEFT_OUT
    data: Any = datasets.load_dataset(
        "parquet", data_files=str(folder / "train.parquet"), cache_dir=str(tmp_path / "cache")
    )["train"]
    assert data.column_names == ["data_source", "prompt", "ability", "reward_model", "extra_info"]
    row = data[0]
    assert (row["data_source"], row["ability"]) == ("s.jsonl", "math")
    assert row["prompt"] == [{"role": "user", "content": "1 + 1?"}]
    assert row["reward_model"] == {"style": "rule", "ground_truth": "2"}
    compute_score = module(folder / "reward.py", "exported_score").compute_score

    async def scored(text: str) -> Any:
        """As verl's reward manager calls it: on a thread, with more in `extra_info`."""
        extra = row["extra_info"] | {"num_turns": None, "rollout_reward_scores": {}}
        call = {"data_source": row["data_source"], "solution_str": text, "extra_info": extra}
        reference = row["reward_model"]["ground_truth"]
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, lambda: compute_score(ground_truth=reference, **call))

    async def all_scored() -> list[Any]:
        return [await scored(text) for text in ("\\boxed{2}", "\\boxed{5}", "no answer")]

    right, wrong, undecided = asyncio.run(all_scored())
    assert right == {"score": 1.0, "acc": 1.0, "undecided": 0.0}
    assert wrong == {"score": 0.0, "acc": 0.0, "undecided": 0.0}
    assert undecided == {"score": 0.0, "acc": 0.0, "undecided": 1.0}
    assert compute_score("s", "\\boxed{7}", "7")["score"] == 1.0  # without the column
    script = (folder / "grpo.sh").read_text()
    subprocess.run(["bash", "-n", str(folder / "grpo.sh")], check=True)
    assert "data.max_response_length=12" in script
    assert "+data.apply_chat_template_kwargs.think=false" in script
    assert f"actor_rollout_ref.model.path={tiny_model}" in script
    assert re.search(r"undecided answer|UNDECIDED", (folder / "README.md").read_text())


@pytest.mark.parametrize(
    ("change", "message", "cure"),
    [
        ({"model": "nowhere"}, "model folder not found", "train one with `spot train`"),
        ({"model": "adapter"}, "got a LoRA adapter", "spot merge adapter"),
        ({"grader": "maths"}, "unknown grader 'maths'", "use math"),
        ({"rows": [ROWS[0] | {"split": "eval"}]}, "belongs to an evaluation", "use answers to other problems"),
        ({"rows": [ROWS[5]]}, "no problem can be exported (1 no reference answer)", "use another file"),
        ({"rows": [ROWS[0] | {"grader": "os:system"}]}, "only a recipe may name a checker", "if you trust it"),
        ({"other": True}, "the folder has other files", "-o"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    change: dict[str, Any],
    message: str,
    cure: str,
    source: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(source.parent)
    Path("adapter").mkdir()
    Path("adapter", "adapter_config.json").write_text("{}")
    if "rows" in change:
        write_rows(source, change["rows"])
    if "other" in change:
        Path("grpo").mkdir()
        Path("grpo", "mine.txt").write_text("")
    with pytest.raises(spotcli.UserError) as caught:
        export(source, Start("trl", change.get("model", str(tiny_model)), change.get("grader")), Path("grpo"))
    assert message in str(caught.value)
    assert cure in str(caught.value.cure)
    assert not Path("grpo", "train.jsonl").exists()


def test_a_second_export_replaces_the_first_and_problems_are_a_source_too(
    source: Path, tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "grpo"
    export(source, Start("trl", str(tiny_model)), folder)
    problems = write_rows(tmp_path / "p.jsonl", [{"question": f"{n} + 1?", "answer": n + 1} for n in range(5)])
    summary = export(problems, Start("trl", str(tiny_model), limit=3), folder)
    assert (summary.prompts, summary.left_out) == (3, {"after the limit": 2})
    assert len((folder / "train.jsonl").read_text().splitlines()) == 3
