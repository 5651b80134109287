"""Expected numbers are worked out in the comments."""

from __future__ import annotations

import json
from array import array
from pathlib import Path

import pytest

from spotcli.inspection.overview import histogram
from tests.inspection.example_pairs import PAIRS, inspect_file, write_rows


def test_summary_of_a_file(data: Path) -> None:
    summary = inspect_file(data, quiet=True)
    assert (summary.pairs, summary.matching, summary.above_gamma) == (3, 3, 1)
    assert (summary.unmeasured, summary.unchanged) == (0, 0)
    assert (summary.ratio_median, summary.ratio_max) == (0.3, 0.9)
    assert summary.ratio_mean == pytest.approx(1.3 / 3)
    # Shared characters before the first edit: "3 * 4 = 1" 9 of 22, "Tom has " 8 of 22, none of 3.
    assert summary.first_edit_median == pytest.approx(8 / 22)
    assert summary.first_edits == [1, 0, 0, 1, 1, 0, 0, 0, 0, 0]
    # y+ have 22, 22 and 5 characters.
    assert summary.shared_prefix == pytest.approx(17 / 49)
    assert summary.verdicts == {"right": 2, "wrong": 1}
    assert summary.reviews == {"none": 2, "accept": 1}
    assert summary.oracles == {"symbolic": 1, "gpt-4o": 1, "none": 1}
    assert json.loads(json.dumps(summary.as_dict()))["counts"]["dropped"]["too far"] == 1


def test_where_that_selects_nothing(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = inspect_file(data, where="ratio>0.95")
    assert (summary.matching, summary.ratio_median, summary.histogram, summary.first_edit_median) == (0, None, [], None)
    assert "3 pairs, 0 selected" in capsys.readouterr().out


def test_edit_statistics_leave_out_rows_without_y_minus(tmp_path: Path) -> None:
    own = {"id": "own", "prompt": "1 + 1", "chosen": "It is 2.", "verdict": "right"}
    html = tmp_path / "page.html"
    summary = inspect_file(write_rows(tmp_path / "data.jsonl", [*PAIRS, own]), html=html)
    pairs_only = inspect_file(write_rows(tmp_path / "pairs.jsonl", PAIRS))
    edits = ("ratio_median", "ratio_mean", "histogram", "first_edit_median", "first_edits", "shared_prefix")
    assert [getattr(summary, name) for name in edits] == [getattr(pairs_only, name) for name in edits]
    assert (summary.pairs, summary.without_rejected, pairs_only.without_rejected) == (4, 1, 0)
    page = html.read_text(encoding="utf-8")
    assert "1 row without y-: the policy's own right answers" in page
    assert page.count('>change ratio</span> <b class="strong">') == 3


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([0.0, 0.0], [(0.0, 0.01, 2)]),
        ([0.0, 0.029, 0.03], [(0.0, 0.01, 1), (0.01, 0.02, 0), (0.02, 0.03, 1), (0.03, 0.04, 1)]),
        ([0.3], [(0.02 * n, 0.02 * n + 0.02, int(n == 15)) for n in range(16)]),
        ([0.6], [(0.05 * n, 0.05 * n + 0.05, int(n == 12)) for n in range(13)]),
        ([1.0], [(0.1 * n, 0.1 * n + 0.1, int(n == 9)) for n in range(10)]),
        ([], []),
    ],
)
def test_histogram(ratios: list[float], expected: list[tuple[float, float, int]]) -> None:
    bins = histogram(array("d", ratios))
    assert [count for _, _, count in bins] == [count for _, _, count in expected]
    assert [bin[:2] for bin in bins] == [pytest.approx(bin[:2]) for bin in expected]
