"""Drift on the base model's own right answers and on neutral prompts, with the tiny model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from spotcli import jsonl
from spotcli.core.drift import token_kl
from spotcli.errors import UserError
from spotcli.evaluation import retention
from spotcli.evaluation.asked_tasks import ModelRows
from spotcli.evaluation.passages import SAMPLING, passages
from spotcli.evaluation.retention import DriftRow, measure_drift, saved_drift
from spotcli.evaluation.tasks import neutral
from spotcli.policies import Answer
from spotcli.policies.transformers import TransformersPolicy
from spotcli.recipe import Recipe
from spotcli.recipe_yaml import load
from spotcli.records import Score


@pytest.fixture(autouse=True)
def few_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neutral, "PROMPTS", neutral.PROMPTS[:4])


@pytest.fixture
def changed_model(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model with slightly changed weights."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return saved(model, tiny_model, tmp_path / "changed")


def saved(model: Any, tokenizer: Path, folder: Path) -> Path:
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


def recipe(**keys: Any) -> Recipe:
    return load(None, None, {f"eval.{name}": value for name, value in ({"batch_size": 4} | keys).items()})


def score(id: str, response: str = "The answer is 4.", **fields: Any) -> Score:
    row = {"id": id, "prompt": f"What is {id}?", "answer": "4", "task": "sums", "trial": 0, "response": response}
    return Score.model_validate(row | {"finish_reason": "stop", "verdict": "right"} | fields)


ROWS = [
    score("2 + 2"),
    score("2 + 2", "It is 4", trial=1, finish_reason="length"),
    score("1 + 3", "Four: 4."),
    score("5 - 1", verdict="wrong"),
    score("8 / 2", task="other"),
]


def measure(model: Path, base: Path, folder: Path, **keys: Any) -> retention.Drift:
    result = measure_drift(recipe(**keys), str(model), ModelRows(str(base), "", ROWS), ["sums"], folder=folder)
    assert result is not None
    return result


def direct(policy: TransformersPolicy, prompt: list[int], ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = policy.model(input_ids=torch.tensor([[*prompt, *ids]])).logits
    return logits[0, len(prompt) - 1 : -1]


def rows_of(folder: Path) -> list[DriftRow]:
    return list(jsonl.read(next(folder.glob("scores/*.drift.jsonl")), DriftRow))


def test_drift_equals_the_direct_computation(tiny_model: Path, changed_model: Path, tmp_path: Path) -> None:
    result = measure(changed_model, tiny_model, tmp_path)
    assert result.own_right is not None
    base, model = (
        TransformersPolicy.load(str(name), SAMPLING, batch_size=4, dtype="float32")
        for name in (tiny_model, changed_model)
    )
    sums = {"neutral": [0.0, 0.0], "own right": [0.0, 0.0]}
    for passage in passages(recipe(), ROWS, ["sums"]):
        prompt = base.prompter.prompt(passage.request)
        if passage.row is None:
            continue
        text = passage.row.response + ("<|im_end|>" if passage.row.finish_reason == "stop" else "")
        ids = base.prompter.tokenizer(text, add_special_tokens=False)["input_ids"]
        sums["own right"][0] += float(token_kl(direct(base, prompt, ids), direct(model, prompt, ids)).sum())
        sums["own right"][1] += len(ids)
    requests = [passage.request for passage in passages(recipe(), [], [])]
    for group in base.answers(requests, 4, lambda request: False):
        for answer in group:
            assert isinstance(answer, Answer)
            assert answer.token_ids is not None
            prompt, ids = base.prompter.prompt(answer.request), answer.token_ids
            sums["neutral"][0] += float(token_kl(direct(base, prompt, ids), direct(model, prompt, ids)).sum())
            sums["neutral"][1] += len(ids)
    assert result.neutral.mean == pytest.approx(sums["neutral"][0] / sums["neutral"][1], abs=1e-5)
    assert result.own_right.mean == pytest.approx(sums["own right"][0] / sums["own right"][1], abs=1e-5)
    assert (result.mean, result.tokens) == (result.neutral.mean, sums["neutral"][1])
    assert result.own_right.tokens == sums["own right"][1]
    assert result.mean > 1e-3


def test_right_answers_to_trained_tasks_are_chosen_one_per_problem() -> None:
    many = [score(f"{index} + 0", trial=trial) for index in range(9) for trial in range(3)] + ROWS[3:]
    chosen = [passage for passage in passages(recipe(drift_answers=5), many, ["sums"]) if passage.row]
    assert len({passage.id for passage in chosen}) == len(chosen) == 5
    assert all(passage.row and passage.row.verdict == "right" for passage in chosen)
    again = [passage for passage in passages(recipe(drift_answers=5), many[::-1], ["sums"]) if passage.row]
    assert [passage.row for passage in again] == [passage.row for passage in chosen]
    assert all(passage.row is None for passage in passages(recipe(drift_answers=0), many, ["sums"]))
    assert all(passage.row is None for passage in passages(recipe(), many, ["nothing"]))


def test_the_worst_prompts_are_listed(tiny_model: Path, changed_model: Path, tmp_path: Path) -> None:
    result = measure(changed_model, tiny_model, tmp_path)
    assert [prompt.kl for prompt in result.worst] == sorted((prompt.kl for prompt in result.worst), reverse=True)
    assert {(prompt.part, prompt.id) for prompt in result.worst} == {
        *(("neutral", f"neutral-{index}") for index in range(4)),
        ("own right", "2 + 2"),
        ("own right", "1 + 3"),
    }
    sums = next(prompt for prompt in result.worst if prompt.id == "1 + 3")
    assert (sums.task, sums.trial, sums.excerpt, sums.tokens) == ("sums", 0, "What is 1 + 3?", len("Four: 4.") + 1)
    assert sums.passage.replace("⟦", "").startswith("Four: 4.")
    assert sums.peak >= sums.kl


def test_prompts_are_rendered_as_in_the_evaluation(tiny_model: Path, changed_model: Path, tmp_path: Path) -> None:
    for folder in (tiny_model, changed_model):
        template = folder / "chat_template.jinja"
        text = template.read_text()
        template.write_text(text + "{% if quiet %}quiet{% endif %}")
    try:
        plain = measure(changed_model, tiny_model, tmp_path)
        quiet = measure(changed_model, tiny_model, tmp_path, chat_template_kwargs={"quiet": True})
    finally:
        (tiny_model / "chat_template.jinja").write_text(text)
    assert quiet.own_right is not None
    assert plain.own_right is not None
    assert quiet.own_right.tokens == plain.own_right.tokens
    assert quiet.own_right.mean != plain.own_right.mean


def test_only_missing_answers_are_measured(
    tiny_model: Path, changed_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measure(changed_model, tiny_model, tmp_path)
    path = next(tmp_path.glob("scores/*.drift.jsonl"))
    whole = path.read_bytes()
    # As after a kill in the middle of a write.
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:3]) + b'{"key": "1')
    loads = []
    plain = TransformersPolicy.load.__func__  # type: ignore[attr-defined]  # mypy takes a class method for a plain callable

    def recorded(cls: Any, name: str, *args: Any, **options: Any) -> Any:
        loads.append(name)
        return plain(cls, name, *args, **options)

    monkeypatch.setattr(TransformersPolicy, "load", classmethod(recorded))
    assert measure(changed_model, tiny_model, tmp_path) == first
    assert path.read_bytes() == whole
    assert loads == [str(tiny_model), str(changed_model)]
    assert measure(changed_model, tiny_model, tmp_path) == first
    assert len(loads) == 2, "nothing is missing, so that no model is loaded"
    assert not list(tmp_path.glob("scores/*.states"))
    # As after a kill between the last row and the end.
    left = path.with_suffix(".states") / "head.safetensors"
    left.parent.mkdir()
    left.write_bytes(b"")
    assert measure(changed_model, tiny_model, tmp_path) == first
    assert not list(tmp_path.glob("scores/*.states"))


def test_a_saved_measurement_is_shown_without_a_model(
    tiny_model: Path, changed_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measure(changed_model, tiny_model, tmp_path)
    monkeypatch.setattr(TransformersPolicy, "load", None)
    rows = [*ROWS, score("9 - 5")]  # right for another grader

    def saved(model: str) -> retention.Drift | None:
        return saved_drift(recipe(), model, ModelRows(str(tiny_model), "", rows), ["sums"], folder=tmp_path)

    assert saved(str(changed_model)) == first
    assert saved(str(tiny_model)) is None
    (changed_model / "config.json").rename(changed_model / "config.old")
    assert saved(str(changed_model)) is None


def test_kept_tokens_are_used(tiny_model: Path, changed_model: Path, tmp_path: Path) -> None:
    ids = TransformersPolicy.load(str(tiny_model), SAMPLING, batch_size=1).prompter.tokenizer.encode("It is 4")
    for kept, tokens in ((ids, len(ids)), ([*ids[:-1], 10**6], len("It is 4") + 1), (ids[:3], len("It is 4") + 1)):
        base = ModelRows(str(tiny_model), "", [score("2 + 2", "It is 4", response_ids=kept)])
        result = measure_drift(recipe(), str(changed_model), base, ["sums"], folder=tmp_path, fresh=True)
        assert result is not None
        assert result.own_right is not None
        assert result.own_right.tokens == tokens


def test_the_number_format_is_part_of_the_key(tiny_model: Path, changed_model: Path, tmp_path: Path) -> None:
    exact = measure(changed_model, tiny_model, tmp_path)
    rounded = measure(changed_model, tiny_model, tmp_path, drift_dtype="bfloat16")
    assert (exact.dtype, rounded.dtype) == ("float32", "bfloat16")
    assert exact.own_right is not None
    assert rounded.own_right is not None
    assert rounded.own_right.mean != exact.own_right.mean
    assert rounded.own_right.mean == pytest.approx(exact.own_right.mean, rel=0.3)
    assert measure(changed_model, tiny_model, tmp_path) == exact


def test_only_one_model_is_in_memory(
    tiny_model: Path, changed_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[weakref.ref[Any]] = []
    alive = []
    plain = TransformersPolicy.__init__

    def recorded(self: Any, model: Any, *args: Any, **options: Any) -> None:
        models.append(weakref.ref(model))
        alive.append(sum(reference() is not None for reference in models))
        plain(self, model, *args, **options)

    monkeypatch.setattr(TransformersPolicy, "__init__", recorded)
    measure(changed_model, tiny_model, tmp_path)
    assert alive == [1, 1]


def test_other_weights_under_the_same_name_are_measured_again(
    tiny_model: Path, changed_model: Path, tmp_path: Path
) -> None:
    first = measure(changed_model, tiny_model, tmp_path)
    AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(changed_model)
    assert measure(changed_model, tiny_model, tmp_path).mean == pytest.approx(0, abs=1e-6)
    assert len(rows_of(tmp_path)) == 2 * (first.neutral.prompts + 2)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")
def test_an_adapter_drifts_like_the_merged_model(tiny_model: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    plain: Any = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    adapted: Any = get_peft_model(plain, config)
    adapted.save_pretrained(tmp_path / "adapter")
    merged = saved(adapted.merge_and_unload(), tiny_model, tmp_path / "merged")
    expected = measure(merged, tiny_model, tmp_path)
    result = measure(tmp_path / "adapter", tiny_model, tmp_path)
    assert expected.mean > 1e-3
    assert result.mean == pytest.approx(expected.mean, rel=1e-3)
    assert result.own_right is not None
    assert expected.own_right is not None
    assert result.own_right.mean == pytest.approx(expected.own_right.mean, rel=1e-3)


def test_models_with_other_vocabularies_have_no_drift(
    tiny_model: Path, changed_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = changed_model / "tokenizer.json"
    vocabulary = json.loads(path.read_text())
    ids = vocabulary["model"]["vocab"]
    ids["a"], ids["b"] = ids["b"], ids["a"]
    path.write_text(json.dumps(vocabulary))
    assert (
        measure_drift(recipe(), str(changed_model), ModelRows(str(tiny_model), "", ROWS), [], folder=tmp_path) is None
    )
    assert "the models have different vocabularies" in capsys.readouterr().err


def test_logits_that_change_after_the_head_are_refused(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    plain = LlamaForCausalLM.forward

    def forward(self: Any, *args: Any, **options: Any) -> Any:
        result = plain(self, *args, **options)
        result.logits = result.logits * 3
        return result

    monkeypatch.setattr(LlamaForCausalLM, "forward", forward)
    with pytest.raises(UserError, match="it changes its logits after the output layer"):
        measure(tiny_model, tiny_model, tmp_path)


def test_capped_logits_are_supported(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    folders = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        config = Gemma2Config(
            vocab_size=258,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            final_logit_softcapping=0.5,
            pad_token_id=1,
            eos_token_id=1,
            bos_token_id=0,
            initializer_range=0.5,
        )
        folders.append(saved(Gemma2ForCausalLM(config), tiny_model, tmp_path / f"gemma-{seed}"))
    result = measure(folders[1], folders[0], tmp_path)
    # With logits between -0.5 and 0.5, no token's log-probability differs by more than 2.
    assert 1e-3 < result.mean < 2


def test_a_killed_measurement_goes_on(tiny_model: Path, changed_model: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from spotcli.evaluation.retention import measure_drift\n"
        "from spotcli.recipe_yaml import load; from spotcli.evaluation.asked_tasks import ModelRows\n"
        "base = ModelRows(sys.argv[2], '', [])\n"
        "measure_drift(load(None, None, {'eval.batch_size': 1}), sys.argv[1], base, [], folder=Path())"
    )
    command = [sys.executable, "-c", script, str(changed_model), str(tiny_model)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        journal = next(tmp_path.glob("scores/*.drift.jsonl"), None)
        if journal and journal.stat().st_size:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.002)
    kept = len(rows_of(tmp_path))
    again = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    rows = rows_of(tmp_path)
    assert 0 < kept <= len(rows) == 32
    assert len({row.id for row in rows}) == 32
