"""The page of a whole run: ``report.html`` in its folder, one file without network.

verdict -> figures -> from problems to pairs -> three repairs -> training -> gains and losses -> cost, time, versions

It is written for somebody who does not have the tool: everything it says is explained on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spotcli import html_pages, jsonl
from spotcli.console import counted, dollars, one_line
from spotcli.errors import SpotError
from spotcli.html_pages import Figure
from spotcli.outputs import meta_path, read_meta
from spotcli.runs.curves import charts, histogram

if TYPE_CHECKING:
    from markupsafe import Markup

REPORT = "report.html"

MINUS = "−"
"""A minus sign in text for people."""
_HERE = Path(__file__).parent

LONGEST_PROMPT = 1_200
"""Characters of a prompt that are shown with an example."""


@dataclass(frozen=True)
class FunnelLine:
    """One count on the way from problems to trained pairs."""

    name: str
    count: int
    share: float
    """In percent of the first count with the same unit."""
    left: list[tuple[str, int]]
    """What did not go on to the next line: reason and count."""


@dataclass(frozen=True)
class Example:
    """One repair."""

    id: str
    ratio: str
    prompt: str
    reference: str
    diff: Markup | None
    rejected: str
    chosen: str


@dataclass(frozen=True)
class Result:
    """One line of gains and losses."""

    task: str
    trained: bool
    before: str
    after: str
    difference: str
    interval: str
    p: str
    result: str
    kind: str
    """Style: ``good``, ``bad`` or ``open``."""
    won: int
    lost: int


def write_report(folder: Path, name: str, summary: Mapping[str, Any]) -> Path:
    """Write the page; an old one is replaced when the new one is complete.

    Args:
        folder: of the run.
        name: of the recipe.
        summary: the content of run.json.

    Raises:
        UserError: the folder is not writable.
        DataError: a row of the pairs or of the metrics is invalid.
    """
    style = html_pages.page_style(_HERE / "report.css")
    pairs = _rows(folder / "data.jsonl")
    ratios = [row["change_ratio"] for row in pairs if isinstance(row.get("change_ratio"), int | float)]
    evaluation = _part(summary, "eval")
    template = html_pages.environment(_HERE).get_template("report.html.jinja")
    parts = template.generate(
        name=name,
        policy=html_pages.content_policy(style, ""),
        style=html_pages.trusted(style),
        verdict=[str(sentence) for sentence in evaluation.get("verdict", [])],
        figures=list(_figures(summary)),
        funnel=list(funnel(summary)),
        bars=histogram(ratios),
        median=f"{sorted(ratios)[len(ratios) // 2]:.2f}" if ratios else "",
        examples=examples(pairs),
        charts=charts(_rows(folder / "checkpoint" / "metrics.jsonl")),
        results=[_result(item) for item in _part(evaluation, "comparisons").values()],
        pages=sorted(path.name for path in (folder / "scores").glob("*.report.html")),
        oracles=_oracles(summary),
        times={stage: _time(seconds) for stage, seconds in _part(summary, "stage_seconds").items()},
        total=_time(float(summary.get("seconds", 0.0))),
        cost=dollars(_cost(summary)),
        versions=_versions(folder),
        recipe=_text(folder / "recipe.yaml"),
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        line=one_line,
        counted=counted,
    )
    path = folder / REPORT
    html_pages.write(path, parts)
    return path


def funnel(summary: Mapping[str, Any]) -> Iterator[FunnelLine]:
    """The way from problems to trained pairs; each line with what did not go on, by reason."""
    sample, rectify, train = (_part(summary, stage) for stage in ("sample", "rectify", "train"))
    if sample:
        left_out = {f"in the evaluation task {task}": count for task, count in _part(sample, "decontaminated").items()}
        conflicting = {"more than one reference": sample.get("conflicting", 0)}
        problems = sample["problems"] + sum(left_out.values()) + conflicting["more than one reference"]
        yield _funnel_line("problems", problems, problems, left_out | conflicting)
        failed, remaining = sample.get("failed", 0), sample.get("remaining", 0)
        asked = sample["answers"] + failed + remaining
        yield _funnel_line("answers", sample["answers"], asked, {"failed": failed, "not asked": remaining})
    if rectify:
        answers = rectify["samples"]
        not_wrong = {"right": rectify["right"], "undecided": rectify["undecided"]}
        yield _funnel_line("wrong answers", rectify["wrong"], answers, not_wrong)
        open_cases = rectify["wrong"] - rectify["pairs"] - sum(rectify["reasons"].values())
        reasons = {**rectify["reasons"], "still open": open_cases}
        yield _funnel_line("pairs", rectify["pairs"], answers, reasons)
    if train:
        first = rectify.get("samples", train["rows"])
        yield _funnel_line("trained pairs", train["pairs"], first, train.get("dropped", {}))


def _funnel_line(name: str, count: int, of: int, left: Mapping[str, int]) -> FunnelLine:
    some = sorted(((reason, number) for reason, number in left.items() if number), key=lambda item: -item[1])
    return FunnelLine(name, count, round(100 * count / of, 1) if of else 0.0, some)


def examples(pairs: list[dict[str, Any]]) -> list[Example]:
    """Three repairs: with a small, a middle and a large change among all."""
    texts = [row for row in pairs if all(isinstance(row.get(side), str) for side in ("chosen", "rejected"))]
    rows = sorted(texts, key=lambda row: (_ratio(row), str(row.get("id"))))
    places = dict.fromkeys(round(share * (len(rows) - 1)) for share in (0.1, 0.5, 0.9)) if rows else {}
    return [_example(rows[place]) for place in places]


def _ratio(row: Mapping[str, Any]) -> float:
    ratio = row.get("change_ratio")
    return float(ratio) if isinstance(ratio, int | float) else 0.0


def _example(row: Mapping[str, Any]) -> Example:
    spans = html_pages.similar_diff(row["rejected"], row["chosen"])
    prompt = row.get("prompt")
    if isinstance(prompt, list):
        last = prompt[-1] if prompt else {}
        prompt = last.get("content") if isinstance(last, dict) else last
    text = str(prompt or "")
    return Example(
        id=str(row.get("id", "")),
        ratio=f"{_ratio(row):.2f}",
        prompt=text if len(text) <= LONGEST_PROMPT else text[:LONGEST_PROMPT] + " …",
        reference=str(row.get("answer") or ""),
        diff=None if spans is None else html_pages.trusted(html_pages.marked_diff(spans, fold=2_000)),
        rejected=row["rejected"],
        chosen=row["chosen"],
    )


def _figures(summary: Mapping[str, Any]) -> Iterator[Figure]:
    """The run in a few numbers."""
    evaluation, rectify = _part(summary, "eval"), _part(summary, "rectify")
    main = next(
        (item for item in _part(evaluation, "comparisons").values() if item["trained"]),
        next(iter(_part(evaluation, "comparisons").values()), None),
    )
    if main is not None:
        result = _result(main)
        note = f"points in {result.task}: {result.before} → {result.after} %, {result.interval}"
        yield Figure("Gain" if main["trained"] else "Difference", result.difference, note, result.kind)
    pooled = _part(evaluation, "pooled")
    if pooled and "verdict" in pooled:
        # Without a verdict one of the tasks is lost, which the sum of all must not hide.
        verdict = pooled["verdict"] or "lost"
        kind = {"kept": "good", "lost": "bad"}.get(verdict, "open")
        note = f"{counted(pooled['problems'], 'problem')} that were not trained on"
        yield Figure("Other skills", verdict, note, kind)
    drift = evaluation.get("drift")
    if isinstance(drift, int | float):
        yield Figure("Drift", f"{drift:.2g}", "nats per token between the two models on neutral prompts")
    if rectify:
        share = f"{rectify['pairs'] / rectify['wrong']:.0%} of {rectify['wrong']:,}" if rectify["wrong"] else "none"
        yield Figure("Repairs", f"{rectify['pairs']:,}", f"{share} wrong answers")
    yield Figure("Cost", dollars(_cost(summary)), f"{_time(float(summary.get('seconds', 0.0)))} of computing")


def _result(item: Mapping[str, Any]) -> Result:
    comparison = item["comparison"]
    result = str(item.get("result", ""))  # not in the summary of an earlier version
    kind = {"gained": "good", "kept": "good", "lost": "bad"}.get(result, "open")
    return Result(
        task=str(item["task"]),
        trained=bool(item["trained"]),
        before=f"{100 * comparison['before']:.1f}",
        after=f"{100 * comparison['after']:.1f}",
        difference=_points(comparison["difference"]),
        interval=f"{_points(comparison['low'])} to {_points(comparison['high'])}",
        p=f"{item['p_holm']:.2g}",
        result=result,
        kind=kind,
        won=len(item["won"]),
        lost=len(item["lost"]),
    )


def _points(share: float) -> str:
    text = f"{100 * share:+.1f}".replace("-", MINUS)
    return "0.0" if text.strip("+" + MINUS) == "0.0" else text


def _oracles(summary: Mapping[str, Any]) -> list[tuple[str, int, int, str]]:
    """Name, replies, pairs and cost of each oracle."""
    oracles = _part(_part(summary, "rectify"), "oracles")
    return [
        (str(name), int(item.get("replies", 0)), int(item.get("pairs", 0)), dollars(float(item.get("cost") or 0.0)))
        for name, item in oracles.items()
    ]


def _cost(summary: Mapping[str, Any]) -> float:
    """US dollars of all stages; 0 where no provider asked for any."""
    return sum(float(_part(summary, stage).get("cost") or 0.0) for stage in ("sample", "rectify"))


def _versions(folder: Path) -> dict[str, str]:
    """Package -> version, with every version if the stages used different ones."""
    versions: dict[str, list[str]] = {}
    for name in ("samples.jsonl", "data.jsonl"):
        if meta_path(folder / name).is_file():
            for package, version in _part(read_meta(folder / name), "versions").items():
                versions.setdefault(package, []).append(str(version))
    try:
        trained = jsonl.read_json(folder / "checkpoint" / "spot-train.json")
    except SpotError:
        trained = {}
    for package, version in _part(trained, "versions").items():
        versions.setdefault(package, []).append(str(version))
    return {package: ", ".join(dict.fromkeys(several)) for package, several in versions.items()}


def _rows(path: Path) -> list[dict[str, Any]]:
    return list(jsonl.rows(path)) if path.is_file() else []


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _part(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A nested object; empty if it is missing."""
    value = values.get(key)
    return value if isinstance(value, dict) else {}


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
