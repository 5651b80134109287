"""A model's answers to the tasks: engines, failures, saved answers graded again, several models."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from spotcli import jsonl, outputs
from spotcli.cli import app
from spotcli.errors import SettingsChanged, Unfinished, UserError
from spotcli.evaluation.graded_scores import ScoreGrading
from spotcli.policies.vllm import adapter_parameters
from spotcli.recipe import Recipe
from spotcli.recipe_yaml import load
from spotcli.records import Score
from spotcli.run import _use_one_engine
from spotcli.stages.evaluate import evaluate
from tests.conftest import write_rows
from tests.fake_provider import FakeProvider

KEY = "sk-test-0123456789abcdef"
FAKE_VLLM = Path(__file__).parent.parent / "policies" / "fake_vllm"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def problems(folder: Path, number: int = 4, **more: Any) -> None:
    rows = [{"id": f"p{n}", "prompt": f"row-{n}: how much?", "answer": str(n), **more} for n in range(number)]
    write_rows(folder / "mine.jsonl", rows)


def recipe(**keys: Any) -> Recipe:
    options: dict[str, Any] = {"tasks": ["mine.jsonl"], "max_new_tokens": 6, "dtype": "float32", "drift": False}
    return load(None, None, {f"eval.{name}": value for name, value in (options | keys).items()})


def scores(folder: Path, model: str) -> list[dict[str, Any]]:
    return list(jsonl.rows(folder / "scores" / f"{model}.jsonl"))


def graded_files(folder: Path) -> list[Path]:
    return [path for path in (folder / "scores").glob("*.jsonl") if not path.name.endswith(".answers.jsonl")]


def replies(number: int = 4) -> dict[str, list[dict[str, Any]]]:
    usage = {"prompt_tokens": 9, "completion_tokens": 5}
    return {f"row-{n}": [{"text": f"\\boxed{{{n % 3}}}", "usage": usage}] for n in range(number)}


# Engines


def test_an_endpoint_answers_and_the_rows_record_it(tmp_path: Path) -> None:
    problems(tmp_path)
    with FakeProvider(replies()) as provider:
        settings = recipe(base_url=provider.base_url, max_new_tokens=50, temperature=0.3)
        summary = evaluate(settings, model="openai/m", folder=tmp_path)
    score = summary.scores["mine.jsonl"]
    assert (score.right, score.wrong, score.failed, score.tokens) == (3, 1, 0, 20)
    assert [body["max_tokens"] for body in (request["body"] for request in provider.requests)] == [50] * 4
    rows = scores(tmp_path, "openai-m")
    assert {(row["split"], row["task"], row["tokens"]) for row in rows} == {("eval", "mine.jsonl", 5)}
    assert {(row["sampling"]["engine"], row["sampling"]["temperature"]) for row in rows} == {("api", 0.3)}
    assert {row["sampling"]["seed"] for row in rows} == {request["body"]["seed"] for request in provider.requests}
    meta = outputs.read_meta(tmp_path / "scores" / "openai-m.jsonl")
    assert (meta["complete"], meta["engine"]["name"]) == (True, "api")
    assert meta["seconds"].keys() == {"mine.jsonl"}
    assert KEY not in "".join(path.read_text() for path in (tmp_path / "scores").iterdir() if path.is_file())


def test_a_checkpoint_in_a_folder_is_answered_here_and_its_base_at_the_endpoint(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problems(tmp_path)
    shutil.copytree(tiny_model, tmp_path / "checkpoint")
    with FakeProvider(replies()) as provider:
        settings = recipe(base_url=provider.base_url, drift=True)
        summary = evaluate(settings, model="checkpoint", against="openai/m", folder=tmp_path)
        assert len(provider.requests) == 4
        # Saved answers of the base model are used again, also by a recipe without the endpoint.
        evaluate(recipe(), model="checkpoint", against="openai/m", folder=tmp_path)
        assert len(provider.requests) == 4
    assert {row["sampling"]["engine"] for row in scores(tmp_path, "checkpoint")} == {"transformers"}
    assert summary.comparisons["mine.jsonl"].comparison.problems == 4
    assert summary.drift is None
    messages = capsys.readouterr().err
    assert "the model is a local folder, so eval.base_url is not used" in messages
    assert "drift is not measured" in messages


def test_an_endpoint_without_a_key_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        evaluate(recipe(engine="api"), model="openai/gpt-4o", folder=tmp_path)
    assert not list(tmp_path.glob("scores/*.jsonl"))


@pytest.mark.parametrize("place", [(outputs.Output, "append"), (ScoreGrading, "__call__")])
def test_the_time_of_answers_outlives_processes_that_are_killed_while_they_grade_and_write_them(
    place: tuple[type, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        pass

    def killed(*_: Any, **__: Any) -> None:
        raise KilledError

    problems(tmp_path)
    with FakeProvider() as provider:
        settings = recipe(engine="api", base_url=provider.base_url)
        for _ in range(2):  # the second one does not ask
            with monkeypatch.context() as patch:
                patch.setattr(*place, killed)
                with pytest.raises(KilledError):
                    evaluate(settings, model="openai/m", folder=tmp_path)
        summary = evaluate(settings, model="openai/m", folder=tmp_path)
        meta = json.loads(next(tmp_path.glob("scores/*.meta.json")).read_text())
        requests = len(provider.requests)
        evaluate(settings, model="openai/m", folder=tmp_path)
        assert len(provider.requests) == requests
    assert meta["failures"] == {}
    assert meta["complete"]
    assert meta["seconds"]["mine.jsonl"] > 0
    assert summary.models[0].scores["mine.jsonl"].seconds == meta["seconds"]["mine.jsonl"]


def test_vllm_answers_for_a_model_and_for_an_adapter(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FAKE_VLLM))
    problems(tmp_path, grader="choice", answer="A")
    adapter = write_adapter(tmp_path / "adapter", tiny_model, rank=12)
    settings = recipe(engine="vllm", trials=2)
    summary = evaluate(settings, model=str(adapter), against=str(tiny_model), also=[], folder=tmp_path)
    assert [model.scores["mine.jsonl"].answers for model in summary.models] == [8, 8]
    rows = list(jsonl.rows(Path(summary.models[1].path)))
    assert {row["response"].partition(" with ")[2] for row in rows} == {"rank 12 of at most 16"}
    assert {row["sampling"]["max_new_tokens"] for row in rows} == {6}
    assert not any("with" in row["response"] for row in jsonl.rows(Path(summary.models[0].path)))


def test_an_adapter_that_vllm_cannot_load_has_a_cure(tiny_model: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", tiny_model, rank=20)
    assert adapter_parameters(str(adapter)) == {"enable_lora": True, "max_lora_rank": 32}
    config = json.loads((adapter / "adapter_config.json").read_text())
    for change, named in (({"use_dora": True}, "use_dora"), ({"r": 1000}, "r: 1000")):
        (adapter / "adapter_config.json").write_text(json.dumps(config | change))
        with pytest.raises(UserError, match=rf"vLLM does not support this adapter \({named}\)") as caught:
            adapter_parameters(str(adapter))
        assert "spot merge" in str(caught.value.cure)


def write_adapter(folder: Path, base: Path, *, rank: int) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted: Any = get_peft_model(model, LoraConfig(r=rank, target_modules=["q_proj"]))
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(folder)
    return folder


def test_an_adapter_is_answered_for_by_transformers(tiny_model: Path, tmp_path: Path) -> None:
    problems(tmp_path)
    adapter = write_adapter(tmp_path / "adapter", tiny_model, rank=4)
    evaluate(recipe(), model=str(adapter), against=str(tiny_model), folder=tmp_path)
    # A new adapter changes nothing, so both models give the same answers.
    pair = [
        scores(tmp_path, file.stem) for file in (tmp_path / "scores").glob("*.jsonl") if ".answers" not in file.name
    ]
    assert [row["response"] for row in pair[0]] == [row["response"] for row in pair[1]]


# Failures


def test_a_prompt_that_does_not_fit_is_a_failure_and_the_rest_is_scored(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    problems(tmp_path)
    with (tmp_path / "mine.jsonl").open("a") as file:
        file.write(json.dumps({"id": "long", "prompt": "x" * 5000, "answer": "1"}) + "\n")
    monkeypatch.chdir(tmp_path)
    command = ["eval", str(tiny_model), "--against", str(tiny_model), "--task", "mine.jsonl", "--json"]
    command += ["--max-new-tokens", "6", "-s", "eval.drift=false"]
    for _ in range(2):  # the next run asks it again
        with pytest.raises(Unfinished, match=r"1 requests failed \(the prompt fills the context 1\); ") as caught:
            app(command, standalone_mode=False)
        assert caught.value.exit_code == 3
        summary = json.loads(capsys.readouterr().out)
        score = summary["models"][0]["scores"]["mine.jsonl"]
        assert (score["failed"], score["right"] + score["wrong"] + score["undecided"]) == (1, 4)
        assert summary["failures"] == {"the prompt fills the context": 1}
        assert summary["comparisons"]["mine.jsonl"]["comparison"]["problems"] == 4
    (path,) = graded_files(tmp_path)
    assert outputs.read_meta(path)["complete"] is False


def test_failed_requests_are_asked_again(tmp_path: Path) -> None:
    problems(tmp_path)
    script = replies() | {"row-2": [{"status": 400, "body": "no"}, {"text": "\\boxed{2}"}]}
    with FakeProvider(script) as provider:
        settings = recipe(base_url=provider.base_url, retries=0, concurrency=1)
        first = evaluate(settings, model="openai/m", folder=tmp_path)
        assert (first.scores["mine.jsonl"].failed, sum(first.failures.values())) == (1, 1)
        with pytest.raises(Unfinished, match="run the same command again to retry them"):
            first.raise_if_unfinished()
        second = evaluate(settings, model="openai/m", folder=tmp_path)
        second.raise_if_unfinished()
        assert len(provider.requests) == 5
    assert second.scores["mine.jsonl"].failed == 0
    assert len(scores(tmp_path, "openai-m")) == 4


def test_a_log_has_the_answers_of_the_score_whatever_failed_or_is_left_out(tmp_path: Path) -> None:
    problems(tmp_path)
    script = replies() | {"row-1": [{"status": 400, "body": "no"}] * 2 + [{"text": "\\boxed{1}"}]}
    with FakeProvider(script) as provider:
        settings = {"base_url": provider.base_url, "retries": 0, "concurrency": 1, "inspect_log": True}
        first = evaluate(recipe(trials=3, **settings), model="openai/m", folder=tmp_path)
        # Row 1 has its third answer only: 3 + 1 + 3 + 3 answers of 4 problems.
        assert first.scores["mine.jsonl"].answers == 10
        [path] = (tmp_path / "scores" / "inspect-logs").iterdir()
        log = json.loads(path.read_bytes())
        assert sorted(sample["epoch"] for sample in log["samples"] if sample["id"] == "p1") == [3]
        assert (len(log["samples"]), log["results"]["completed_samples"]) == (10, 10)
        assert log["eval"]["config"]["epochs"] == 3
        # Fewer problems and trials than the file has.
        evaluate(recipe(trials=1, limit=1, **settings), model="openai/m", folder=tmp_path)
    [path] = (tmp_path / "scores" / "inspect-logs").iterdir()
    log = json.loads(path.read_bytes())
    assert [(sample["id"], sample["epoch"]) for sample in log["samples"]] == [("p0", 1)]


def test_the_message_about_failed_requests_names_the_model_whose_requests_failed(tmp_path: Path) -> None:
    problems(tmp_path)
    with FakeProvider(replies()) as provider:
        evaluate(recipe(base_url=provider.base_url, retries=0), model="openai/base", folder=tmp_path)
    with FakeProvider(replies() | {"row-2": [{"status": 400, "body": "no"}]}) as provider:
        settings = recipe(base_url=provider.base_url, retries=0)
        summary = evaluate(settings, model="openai/tuned", against="openai/base", folder=tmp_path)
    with pytest.raises(Unfinished) as caught:
        summary.raise_if_unfinished()
    assert caught.value.where == str(tmp_path / "scores" / "openai-tuned.jsonl")


def test_failed_requests_are_shown_whenever_their_score_is(tmp_path: Path) -> None:
    problems(tmp_path)
    with FakeProvider(replies() | {"row-2": [{"status": 400, "body": "no"}, {"text": "\\boxed{2}"}]}) as provider:
        settings = recipe(base_url=provider.base_url, retries=0)
        evaluate(settings, model="openai/m", folder=tmp_path)
        sentence = "Failed answers of openai/m are left out: 1 in mine.jsonl."
        rescored = evaluate(recipe(), model="openai/m", folder=tmp_path, rescore=True)
        assert sentence in rescored.verdict
        rescored.raise_if_unfinished()  # nothing was asked
        also = evaluate(recipe(), model="openai/m", also=["scores/openai-m.jsonl"], folder=tmp_path, rescore=True)
        assert [model.failed["mine.jsonl"] for model in also.models] == [1, 1]
        assert evaluate(settings, model="openai/m", folder=tmp_path).scores["mine.jsonl"].failed == 0
    assert sentence not in evaluate(recipe(), model="openai/m", folder=tmp_path, rescore=True).verdict


# Saved answers


def evaluated(folder: Path, **more: Any) -> None:
    problems(folder, **more)
    with FakeProvider(replies()) as provider:
        evaluate(recipe(base_url=provider.base_url), model="openai/m", folder=folder)


def verdicts(folder: Path) -> list[str]:
    return [row["verdict"] for row in sorted(scores(folder, "openai-m"), key=lambda row: row["id"])]


@pytest.mark.parametrize("journal", [True, False])
def test_another_grader_asks_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, journal: bool) -> None:
    evaluated(tmp_path)
    assert verdicts(tmp_path) == ["right", "right", "right", "wrong"]
    if not journal:  # as in a folder of an earlier version
        (tmp_path / "scores" / "openai-m.answers.jsonl").unlink()
        write_rows(
            tmp_path / "scores" / "openai-m.jsonl",
            [
                {key: value for key, value in row.items() if key not in ("sampling", "grader")}
                for row in scores(tmp_path, "openai-m")
            ],
        )
    (tmp_path / "lenient.py").write_text("def check(response, reference):\n    return 'boxed' in response\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = recipe()
    settings.grader = "lenient:check"
    # The endpoint is gone, and there is no key.
    monkeypatch.delenv("OPENAI_API_KEY")
    before = scores(tmp_path, "openai-m")
    summary = evaluate(settings, model="openai/m", folder=tmp_path, rescore=True)
    assert summary.scores["mine.jsonl"].right == 4
    assert verdicts(tmp_path) == ["right"] * 4
    for old, new in zip(before, scores(tmp_path, "openai-m"), strict=True):
        changed = {key for key in old | new if old.get(key) != new.get(key)}
        assert changed <= {"verdict", "extracted", "reason", "grader"}
    # Later runs go on with the new verdicts.
    assert evaluate(settings, model="openai/m", folder=tmp_path).scores["mine.jsonl"].right == 4


def test_a_lost_file_of_scores_is_made_again_from_the_answers(tmp_path: Path) -> None:
    evaluated(tmp_path)
    before = sorted(map(str, scores(tmp_path, "openai-m")))
    (tmp_path / "scores" / "openai-m.jsonl").unlink()
    evaluate(recipe(), model="openai/m", folder=tmp_path, rescore=True)
    assert sorted(map(str, scores(tmp_path, "openai-m"))) == before
    (tmp_path / "scores" / "openai-m.jsonl").unlink()
    with pytest.raises(SettingsChanged, match="temperature was"):
        evaluate(recipe(engine="api", temperature=0.1), model="openai/m", folder=tmp_path)


def test_a_corrected_reference_answer_is_noticed_and_graded_again(tmp_path: Path) -> None:
    evaluated(tmp_path)
    rows = list(jsonl.rows(tmp_path / "mine.jsonl"))
    rows[3]["answer"] = "0"
    write_rows(tmp_path / "mine.jsonl", rows)
    with pytest.raises(SettingsChanged, match=r"problem p3 of mine\.jsonl: .* another reference answer") as caught:
        evaluate(recipe(engine="api"), model="openai/m", folder=tmp_path)
    assert "--rescore" in str(caught.value.cure)
    assert evaluate(recipe(), model="openai/m", folder=tmp_path, rescore=True).scores["mine.jsonl"].right == 4
    assert {row["answer"] for row in scores(tmp_path, "openai-m")} == {"0", "1", "2"}
    rows[0]["prompt"] = "row-0: how many?"
    write_rows(tmp_path / "mine.jsonl", rows)
    with pytest.raises(SettingsChanged, match="given to another prompt"):
        evaluate(recipe(engine="api"), model="openai/m", folder=tmp_path)
    # Without the problems, the answers are graded by what was asked.
    (tmp_path / "mine.jsonl").unlink()
    assert evaluate(recipe(), model="openai/m", folder=tmp_path, rescore=True).scores["mine.jsonl"].right == 3


def test_rescore_requires_saved_answers_and_excludes_fresh(tmp_path: Path) -> None:
    problems(tmp_path)
    with pytest.raises(UserError, match="no saved answers"):
        evaluate(recipe(), model="openai/m", folder=tmp_path, rescore=True)
    with pytest.raises(UserError, match="mutually exclusive"):
        evaluate(recipe(), model="openai/m", folder=tmp_path, rescore=True, fresh=True)


def test_answers_to_other_tasks_are_no_failed_requests(tmp_path: Path) -> None:
    evaluated(tmp_path)
    write_rows(tmp_path / "other.jsonl", [{"id": "o", "prompt": "row-9: how many?", "answer": "9"}])
    with pytest.raises(UserError, match=r"no answers to other\.jsonl") as caught:
        evaluate(recipe(tasks=["other.jsonl"]), model="openai/m", folder=tmp_path, rescore=True)
    assert caught.value.exit_code == 2
    assert caught.value.cure == "the file has answers to other tasks: --task mine.jsonl"
    assert len(scores(tmp_path, "openai-m")) == 4
    with FakeProvider(replies()) as provider:
        settings = recipe(tasks=["other.jsonl"], base_url=provider.base_url)
        with pytest.raises(UserError, match=r"openai-m\.jsonl: no answers to other"):
            evaluate(settings, model="openai/n", also=["scores/openai-m.jsonl"], folder=tmp_path)


def test_fresh_sets_the_saved_answers_aside(tmp_path: Path) -> None:
    evaluated(tmp_path)
    with FakeProvider(replies()) as provider:
        evaluate(recipe(base_url=provider.base_url), model="openai/m", folder=tmp_path, fresh=True)
        assert len(provider.requests) == 4
    assert (tmp_path / "scores" / "openai-m.old-1.answers.jsonl").exists()


# Saved answers of other settings and models


def test_other_parameters_of_the_endpoint_are_refused_and_another_key_is_not(tmp_path: Path) -> None:
    problems(tmp_path)
    with FakeProvider(replies()) as provider:

        def run(effort: str, key: str, **more: Any) -> None:
            params = {"reasoning_effort": effort, "extra_headers": {"X-Key": key}}
            evaluate(recipe(base_url=provider.base_url, params=params, **more), model="hosted_vllm/m", folder=tmp_path)

        run("low", "key-1")
        run("low", "key-2")
        with pytest.raises(SettingsChanged, match=r'params was {"reasoning_effort": "low"}, now .*"high"'):
            run("high", "key-2", trials=2)
        assert len(provider.requests) == 4


def test_another_token_limit_of_a_task_is_refused(tmp_path: Path) -> None:
    problems(tmp_path)
    with FakeProvider(replies()) as provider:

        def run(limit: int, limit_of_all: int = 100) -> None:
            task = {"mine.jsonl": {"max_new_tokens": limit}}
            settings = recipe(base_url=provider.base_url, task_settings=task, max_new_tokens=limit_of_all)
            evaluate(settings, model="openai/m", folder=tmp_path)

        run(50)
        run(50)
        with pytest.raises(SettingsChanged, match=r"to mine\.jsonl .* another limit of tokens: it was 50, now 60"):
            run(60)
        assert len(provider.requests) == 4
    assert {request["body"]["max_tokens"] for request in provider.requests} == {50}


def test_other_settings_of_the_second_model_are_refused_before_the_first_one_is_asked(tmp_path: Path) -> None:
    problems(tmp_path)
    with FakeProvider(replies()) as provider:
        task = {"mine.jsonl": {"max_new_tokens": 50}}
        settings = {"base_url": provider.base_url, "task_settings": task, "max_new_tokens": 100}
        evaluate(recipe(**settings), model="openai/tuned", folder=tmp_path)
        limit = {"task_settings": {"mine.jsonl": {"max_new_tokens": 60}}}
        for change, message in (({"temperature": 0.1}, "temperature was"), (limit, "another limit of tokens")):
            with pytest.raises(SettingsChanged, match=message):
                evaluate(recipe(**settings | change), model="openai/tuned", against="openai/base", folder=tmp_path)
        assert len(provider.requests) == 4


def test_a_folder_is_the_same_model_however_it_is_written(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems(tmp_path)
    shutil.copytree(tiny_model, tmp_path / "checkpoint")
    monkeypatch.chdir(tmp_path)
    before = evaluate(recipe(), model="checkpoint")
    monkeypatch.setattr("spotcli.answering.engine.load_policy", None)  # no model is loaded again
    for name in ("checkpoint/", "./checkpoint"):
        after = evaluate(recipe(), model=name)
        assert (after.model, after.scores["mine.jsonl"].answers) == (before.model, 4)


def test_an_adapter_on_another_base_model_is_another_model(tiny_model: Path, tmp_path: Path) -> None:
    problems(tmp_path)
    base = shutil.copytree(tiny_model, tmp_path / "base")
    adapter = str(write_adapter(tmp_path / "adapter", base, rank=4))
    evaluate(recipe(), model=adapter, folder=tmp_path)
    (path,) = graded_files(tmp_path)
    recorded = outputs.read_meta(path)
    evaluate(recipe(), model=adapter, folder=tmp_path)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"rope_theta": 500.0}))
    with pytest.raises(SettingsChanged, match="fingerprint was"):
        evaluate(recipe(trials=2), model=adapter, folder=tmp_path)
    # Earlier versions recorded the adapter alone.
    recorded["settings"]["fingerprint"] = recorded["settings"]["fingerprint"].partition("+")[0]
    outputs.meta_path(path).write_text(json.dumps(recorded))
    evaluate(recipe(), model=adapter, folder=tmp_path)


@pytest.mark.parametrize("missing", ["adapter", "base"])
def test_complete_answers_outlive_the_weights_and_are_not_mixed_with_others(
    missing: str, tiny_model: Path, tmp_path: Path
) -> None:
    problems(tmp_path)
    base = shutil.copytree(tiny_model, tmp_path / "base")
    adapter = str(write_adapter(tmp_path / "adapter", base, rank=4))
    before = evaluate(recipe(), model=adapter, folder=tmp_path)
    (tmp_path / missing).rename(tmp_path / "moved")
    after = evaluate(recipe(drift=True), model=adapter, against=str(tiny_model), folder=tmp_path)
    assert after.scores["mine.jsonl"].estimate == before.scores["mine.jsonl"].estimate
    assert after.drift is None
    with FakeProvider(replies()) as provider:
        settings = recipe(trials=2, base_url=provider.base_url)
        with pytest.raises(UserError, match="folder of the model is missing, and 4 answers"):
            evaluate(settings, model=adapter, folder=tmp_path)
        assert provider.requests == []
    (tmp_path / "moved").rename(tmp_path / missing)
    assert evaluate(recipe(trials=2), model=adapter, folder=tmp_path).scores["mine.jsonl"].answers == 8


# Several models


def test_models_whose_names_are_not_ascii_have_files_of_their_own(tiny_model: Path, tmp_path: Path) -> None:
    problems(tmp_path)
    for name in ("模型", "модель"):
        shutil.copytree(tiny_model, tmp_path / name)
    evaluate(recipe(), model="模型", against="модель", folder=tmp_path)
    assert {path.name for path in graded_files(tmp_path)} == {"模型.jsonl", "модель.jsonl"}


def test_two_models_with_one_file_of_scores_are_refused_before_anything_is_asked(tmp_path: Path) -> None:
    problems(tmp_path)
    with FakeProvider(replies()) as provider:
        settings = recipe(base_url=provider.base_url)
        with pytest.raises(UserError, match="'openai/m-1' and 'openai/m_1' have the same file of scores") as caught:
            evaluate(settings, model="openai/m_1", against="openai/m-1", folder=tmp_path)
        assert provider.requests == []
        # The cure works.
        evaluate(recipe(base_url=provider.base_url, output="base"), model="openai/m-1", folder=tmp_path)
        summary = evaluate(settings, model="openai/m_1", against="base/openai-m-1.jsonl", folder=tmp_path)
    assert "-o" in str(caught.value.cure)
    assert summary.comparisons["mine.jsonl"].comparison.problems == 4


def test_further_models_and_files_of_scores_are_in_the_summary(tiny_model: Path, tmp_path: Path) -> None:
    evaluated(tmp_path)
    shutil.copy(tmp_path / "scores" / "openai-m.jsonl", tmp_path / "theirs.jsonl")
    with FakeProvider(replies()) as provider:
        settings = recipe(base_url=provider.base_url)
        summary = evaluate(settings, model=str(tiny_model), also=["openai/n", "theirs.jsonl"], folder=tmp_path)
        assert len(provider.requests) == 4
    assert [Path(model.path).name for model in summary.models][1:] == ["openai-n.jsonl", "theirs.jsonl"]
    assert [model.scores["mine.jsonl"].right for model in summary.models] == [0, 3, 3]
    assert summary.comparisons == {}


# Interruptions of a local engine


def test_after_a_kill_of_generation_the_scores_are_the_same(tiny_model: Path, tmp_path: Path) -> None:
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    command = [sys.executable, "-m", "spotcli", "eval", str(tiny_model), "--task", "mine.jsonl", "--json"]
    command += ["-s", "eval.max_new_tokens=40", "-s", "eval.batch_size=4"]
    for folder in (calm, rough):
        folder.mkdir()
        problems(folder, 60)
    subprocess.run(command, cwd=calm, check=True, capture_output=True)
    name = graded_files(calm)[0].name
    path = rough / "scores" / name
    process = subprocess.Popen(command, cwd=rough, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < 10):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # As after a kill in the middle of a write.
    path.write_bytes(path.read_bytes()[:-25])
    done = subprocess.run(command, cwd=rough, check=True, capture_output=True, text=True)
    assert path.read_bytes() == (calm / "scores" / name).read_bytes()
    assert len(list(jsonl.read(path, Score))) == 60
    assert len(list(jsonl.rows(path.with_suffix(".answers.jsonl")))) == 60
    assert json.loads(done.stdout)["models"][0]["scores"]["mine.jsonl"]["failed"] == 0


# spot run


def test_a_run_evaluates_with_the_engine_that_samples() -> None:
    settings = load(None, ["sample.engine=vllm", "sample.python=/vllm/python"], {})
    _use_one_engine(settings)
    assert (settings.eval.engine, settings.eval.python) == ("vllm", "/vllm/python")
    assert settings.sources["eval.python"] == "sample.python (-s sample.python=/vllm/python)"
    own = load(None, ["sample.engine=vllm", "eval.engine=transformers"], {})
    _use_one_engine(own)
    assert own.eval.engine == "transformers"
    # An endpoint does not have the checkpoint.
    served = load(None, ["sample.base_url=http://gpu:8000/v1", "sample.engine=api"], {})
    _use_one_engine(served)
    assert (served.eval.engine, served.eval.base_url) == ("auto", None)
