"""The policy's surprise per token: torch's own softmax, a file that is resumed, filter and order."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from spotcli import jsonl
from spotcli.appender import Appender
from spotcli.errors import UserError
from spotcli.inspection import surprise
from spotcli.inspection.pair_filter import Selection
from spotcli.inspection.surprise import Computation, PairSurprise, Surprises
from spotcli.inspection.token_lines import token_parts
from spotcli.inspection.trained_tokens import PairEncoder, PairTokens
from spotcli.records import Pair
from spotcli.stages.review import TokenOptions, View, review
from tests.inspection.example_pairs import write_rows
from tests.inspection.test_trained_tokens import ROWS, SUM, recipe


def pairs_of(path: Path) -> list[Pair]:
    return list(jsonl.read(path, Pair))


def compute(model: Path, path: Path, **options: Any) -> tuple[Computation, Surprises]:
    """Compute what is missing."""
    surprises = Surprises(path, str(model))
    computation = Computation(recipe(model, dtype="float32"), path, surprises)
    computation.run(computation.missing(pairs_of(path)), options.pop("advance", lambda count: None), **options)
    return computation, surprises


def nats_by_hand(model: Path, prompt: Sequence[int], answer: Sequence[int]) -> list[float]:
    """-log softmax of the logits of one plain forward pass."""
    import torch
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        logits_1LV = loaded(torch.tensor([[*prompt, *answer]])).logits
    logps_LV = logits_1LV[0, len(prompt) - 1 : -1].double().log_softmax(-1)
    return [-logps_LV[place, token].item() for place, token in enumerate(answer)]


def known(surprises: Surprises, pair: Pair) -> PairSurprise:
    row = surprises.row(pair)
    assert row is not None
    return row


def test_nats_are_those_of_torch(tiny_model: Path, tmp_path: Path) -> None:
    own = {"id": "own", "prompt": "Q", "chosen": "without y-"}
    path = write_rows(tmp_path / "data.jsonl", [*ROWS[:4], own])
    done: list[int] = []
    _, surprises = compute(tiny_model, path, advance=done.append)
    assert sum(done) == 5
    encoder = PairEncoder.load(recipe(tiny_model), path)
    for pair in pairs_of(path):
        encoded = encoder.encode(pair)
        assert not isinstance(encoded, str)
        row = known(surprises, pair)
        assert len(row.shared) == encoded.shared
        sides = ((row.chosen, encoded.chosen_ids), (row.rejected, encoded.rejected_ids))
        means = []
        for tail, ids in sides:
            expected = nats_by_hand(tiny_model, encoded.prompt_ids, ids)
            assert [*row.shared, *tail] == pytest.approx(expected, abs=2e-4)
            means.append(sum(expected) / len(expected) if expected else None)
        for mean, expected_mean in zip(surprises.means(pair), means, strict=True):
            assert mean == (None if expected_mean is None else pytest.approx(expected_mean, abs=2e-4))
    assert surprises.shown(pairs_of(path)[0]) == f"y+ {means_text(surprises, pairs_of(path)[0])} nats/token"


def means_text(surprises: Surprises, pair: Pair) -> str:
    chosen, rejected = surprises.means(pair)
    return f"{chosen:.2f}  y- {rejected:.2f}"


def test_a_model_that_cannot_share_prefixes(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spotcli.core.forward import shared_attention

    path = write_rows(tmp_path / "data.jsonl", ROWS[:4])
    _, shared = compute(tiny_model, path)
    rows = [known(shared, pair).model_dump() for pair in pairs_of(path)]
    shared.path.unlink()
    monkeypatch.setattr(shared_attention, "unsupported", lambda config: "not this one")
    _, plain = compute(tiny_model, path)
    for pair, row in zip(pairs_of(path), rows, strict=True):
        for name in ("shared", "chosen", "rejected"):
            assert getattr(known(plain, pair), name) == pytest.approx(row[name], abs=2e-4)


def test_an_interrupted_computation_is_resumed(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(
        tmp_path / "data.jsonl", [SUM | {"id": str(number), "prompt": f"Q{number}"} for number in range(6)]
    )
    monkeypatch.setattr(surprise, "MICRO_TOKENS", 70)
    done: list[int] = []
    computation, surprises = compute(tiny_model, path, advance=done.append, stopped=lambda: sum(done) >= 2)
    assert len(surprises) == sum(done) == 2
    # A kill leaves an incomplete line; another program a damaged one.
    with surprises.path.open("a") as file:
        file.write('{"pair": 3}\n{"pair": "torn')
    missing = list(computation.missing(pairs_of(path)))
    assert len(missing) == 4
    done.clear()
    _, surprises = compute(tiny_model, path, advance=done.append)
    assert (sum(done), len(surprises)) == (4, 6)
    texts = [row["pair"] for row in jsonl.rows(surprises.path) if "ids" in row]
    assert len(texts) == len(set(texts)) == 6
    done.clear()
    compute(tiny_model, path, advance=done.append)
    assert done == []


def test_a_changed_text_or_policy_is_computed_again(tiny_model: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "data.jsonl", [SUM])
    computation, surprises = compute(tiny_model, path)
    edited = Pair.model_validate(SUM | {"chosen": "3 + 4 = 7."})
    assert surprises.means(edited) == (None, None)
    assert surprises.row(edited) is None
    assert list(computation.missing([edited])) == [edited]
    assert len(known(surprises, pairs_of(path)[0]).chosen) == 2
    assert surprises.is_known(pairs_of(path)[0], computation.basis)
    assert not surprises.is_known(pairs_of(path)[0], "other weights")
    other = Surprises(path, "another/model")
    other.read_once()
    assert len(other) == 0


def test_one_process_computes_at_a_time(tiny_model: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "data.jsonl", [SUM])
    with Appender(tmp_path / "data.surprise.jsonl"), pytest.raises(UserError, match="another process"):
        compute(tiny_model, path)


def test_pairs_that_are_not_trained_have_no_surprise(tiny_model: Path, tmp_path: Path) -> None:
    rows = [SUM, SUM | {"id": "same", "chosen": SUM["rejected"]}, SUM | {"id": "long", "prompt": "Q" * 60}]
    path = write_rows(tmp_path / "data.jsonl", rows)
    surprises = Surprises(path, str(tiny_model))
    computation = Computation(recipe(tiny_model, max_length=64), path, surprises)
    done: list[int] = []
    computation.run(computation.missing(pairs_of(path)), done.append)
    assert sum(done) == 3
    assert computation.left_out == {"chosen and rejected are the same": 1, "longer than max_length": 1}
    assert len(surprises) == 1


def test_filter_order_and_head(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_rows(tmp_path / "data.jsonl", ROWS[:4])

    def printed(where: str | None, **options: Any) -> str:
        view = View(tokens=TokenOptions(**options))
        selection = Selection(where=where)
        settings = recipe(tiny_model, dtype="float32")
        review(settings, folder=tmp_path, data=Path("data.jsonl"), selection=selection, view=view)
        return capsys.readouterr().out

    assert "surprise y+" not in printed(None)
    assert re.findall(r"^== \d/4  (\w+)", printed("surprise=none"), re.MULTILINE) == [row["id"] for row in ROWS[:4]]
    # The filter needs all values, so they are computed first.
    assert re.findall(r"^== \d/4", printed("surprise!=none", surprise=True), re.MULTILINE)
    surprises = Surprises(path, str(tiny_model))
    surprises.read_once()
    means = {pair.id: surprises.means(pair) for pair in pairs_of(path)}
    by_surprise = sorted(means, key=lambda id: -(means[id][0] or 0))
    text = printed(None, order="surprise")
    assert re.findall(r"^== \d/4  (\w+)", text, re.MULTILINE) == by_surprise
    first = next(pair for pair in pairs_of(path) if pair.id == by_surprise[0])
    assert f"surprise {surprises.shown(first)}" in text
    middle = sorted(rejected for _, rejected in means.values() if rejected is not None)[1] + 1e-6
    expected = [id for id, (_, rejected) in means.items() if rejected is not None and rejected > middle]
    selected = re.findall(r"^== \d/\d  (\w+)", printed(f"surprise_rejected>{middle}"), re.MULTILINE)
    assert selected == expected
    assert len(expected) == 2


def test_surprise_beside_the_tokens(tiny_model: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "data.jsonl", [SUM])
    pair = pairs_of(path)[0]
    tokens = PairEncoder.load(recipe(tiny_model), path).tokens(pair)
    assert isinstance(tokens, PairTokens)
    row = PairSurprise(
        pair="", policy="", basis="", ids=tokens.digest, shared=[0.0] * 8, chosen=[7.25, 0.0], rejected=[0.5, 0.1]
    )

    def lines(given: PairSurprise) -> list[str]:
        return [line.plain for line in token_parts(tokens, given, marked=True, width=None, folded=False)]

    plain = lines(row)
    assert "y- surprise 0.06 nats/token, of its edited tokens 0.50; most surprising: 8 0.50" in plain
    assert "y+ surprise 0.72 nats/token, of its edited tokens 7.25; most surprising: 7 7.25" in plain
    assert any("{+7⁷+}" in line for line in plain)
    coloured = token_parts(tokens, row, marked=False, width=None, folded=False)
    styles = {line.plain[span.start : span.end]: span.style for line in coloured for span in line.spans}
    assert (styles["{+7+}"], styles["[-8-]"]) == ("black on color(209)", "black on color(230)")
    assert "{+7⁷+}" not in "\n".join(line.plain for line in coloured)
    other = lines(row.model_copy(update={"ids": "another template"}))
    assert "the surprise in the file is that of other tokens" in other[0]
    assert not any("nats" in line for line in other)
    # A row of our format with too few numbers is not used either.
    assert not any("nats" in line for line in lines(row.model_copy(update={"chosen": [1.0]})))


def test_rows_of_the_file_are_checked(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "data.jsonl", [SUM])
    good = {"pair": "p", "policy": "m", "basis": "b", "ids": "i", "chosen": [1.0], "rejected": [2.0]}
    bad: list[Any] = [[], {}, good | {"chosen": ["x"]}, good | {"chosen": [float("nan")]}, good | {"ids": 3}]
    with (tmp_path / "data.surprise.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in [*bad, good])
        file.write("[" * 100_000 + "\n\x00\n")
    surprises = Surprises(path, None)
    surprises.read_once()
    assert len(surprises) == 1
