"""Score the same saved answers with lm-eval and lighteval, and list every answer on which they and spot disagree.

    python -m venv peers && peers/bin/pip install lm-eval lighteval
    peers/bin/python benchmarks/eval_peers.py scores/*.jsonl
    peers/bin/python benchmarks/eval_peers.py scores/*.jsonl --list lighteval

Runs in an environment of its own, because the other packages need other versions; spot is not imported. The files are
those of `spot eval`, or of `spot sample`. Only the scoring functions of the other packages are called: no model answers
anything. Answers to a task whose name contains `gsm8k` are scored as their gsm8k task does, all others as their tasks
for competition mathematics do.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

EXCERPT = 160
"""Characters of the end of an answer that are listed."""


@dataclass(frozen=True)
class Answer:
    """A saved answer with the verdict of spot."""

    task: str
    id: str
    trial: int
    prompt: str
    reference: str
    response: str
    verdict: str
    extracted: str | None


def read(path: Path) -> Iterator[Answer]:
    """Yield the graded answers of a file that have a reference answer as text; others have checkers of their own."""
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if "verdict" not in row or not isinstance(row.get("answer"), str) or row.get("grader") not in (None, "math"):
            continue
        prompt = row["prompt"] if isinstance(row["prompt"], str) else row["prompt"][-1]["content"]
        task = row.get("task") or path.name.partition(".")[0]
        response, extracted = row["response"], row.get("extracted")
        yield Answer(task, row["id"], row.get("trial", 0), prompt, row["answer"], response, row["verdict"], extracted)


@cache
def lm_eval_gsm8k() -> Callable[[Answer], bool]:
    """The filter ``flexible-extract`` and the metric of the task gsm8k_cot_zeroshot, with the task's settings."""
    import yaml
    from lm_eval import tasks
    from lm_eval.api.metrics import exact_match_fn
    from lm_eval.filters.extraction import RegexFilter

    settings = yaml.safe_load((Path(tasks.__file__).parent / "gsm8k" / "gsm8k-cot-zeroshot.yaml").read_text())
    chosen = next(part for part in settings["filter_list"] if part["name"] == "flexible-extract")["filter"][0]
    regex = RegexFilter(chosen["regex_pattern"], group_select=chosen["group_select"])
    metric = settings["metric_list"][0]
    options = {name: metric[name] for name in ("ignore_case", "ignore_punctuation", "regexes_to_ignore")}

    def score(answer: Answer) -> bool:
        extracted = next(iter(regex.apply([[answer.response]], [{}])))[0]
        result = exact_match_fn(predictions=[extracted], references=[answer.reference], **options)
        return bool(result["exact_match"])

    return score


@cache
def lm_eval_math() -> Callable[[Answer], bool]:
    """The scoring of the tasks aime24 and aime25: the last box, compared as a normalised string."""
    from lm_eval.tasks.aime.utils import process_results

    return lambda answer: bool(process_results({"answer": answer.reference}, [answer.response])["exact_match"])


@cache
def lighteval(metric: str, reference: str) -> Callable[[Answer], bool]:
    """A metric of lighteval; ``reference`` is the form of the reference answer in its tasks."""
    from lighteval.metrics.metrics import Metrics
    from lighteval.models.model_output import ModelResponse
    from lighteval.tasks.requests import Doc

    chosen: Any = Metrics[metric]
    compute = (chosen(sample_params={"n": 1}) if metric == "avg_at_n_math" else chosen.value).sample_level_fn

    def score(answer: Answer) -> bool:
        doc = Doc(query=answer.prompt, choices=[reference.format(answer.reference)], gold_index=0, task_name="task")
        return bool(compute.compute(doc=doc, model_response=ModelResponse(text=[answer.response])))

    return score


def peers(answer: Answer) -> dict[str, Callable[[Answer], bool]]:
    """The scoring functions for an answer, by the name of the package."""
    if "gsm8k" in answer.task:
        return {"lm-eval": lm_eval_gsm8k(), "lighteval": lighteval("expr_gold_metric", "{}")}
    return {"lm-eval": lm_eval_math(), "lighteval": lighteval("avg_at_n_math", "${}$")}


def main() -> None:
    """Print the agreement by task, and with ``--list`` the differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--list", metavar="PACKAGE", help="list the differences from lm-eval or lighteval")
    options = parser.parse_args()
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for path in options.files:
        for answer in read(path):
            right = answer.verdict == "right"
            for name, score in peers(answer).items():
                theirs = score(answer)
                kind = ("both" if right else "only they") if theirs else ("only spot" if right else "neither")
                counts[answer.task, name][kind] += 1
                counts[answer.task, name]["undecided"] += answer.verdict == "undecided"
                if options.list == name and theirs != right:
                    print(describe(answer, kind), end="\n\n")
    columns = ("both", "neither", "only spot", "only they", "undecided")
    print("| task | package | answers | " + " | ".join(columns) + " | agreement |")
    print("|---" * (len(columns) + 4) + "|")
    for (task, name), count in sorted(counts.items()):
        total = count["both"] + count["neither"] + count["only spot"] + count["only they"]
        cells = [str(count[column]) for column in columns]
        agreement = (count["both"] + count["neither"]) / total
        print(f"| {task} | {name} | {total} | {' | '.join(cells)} | {agreement:.1%} |")


def describe(answer: Answer, kind: str) -> str:
    """One difference: who counts the answer as right, the reference, what spot extracted, and the answer's end."""
    tail = re.sub(r"[\x00-\x1f\x7f]+", " ", answer.response[-EXCERPT:])
    return (
        f"{answer.task} {answer.id} {answer.trial}: right for {kind.removeprefix('only ')}; "
        f"reference {answer.reference!r}, spot: {answer.verdict} {answer.extracted!r}\n    ...{tail}"
    )


if __name__ == "__main__":
    main()
