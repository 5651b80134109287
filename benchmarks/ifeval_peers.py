"""Check the same responses with spot's task ifeval and with lm-eval's checkers, and count the verdicts that differ.

    pip install --no-deps lm-eval
    python benchmarks/ifeval_peers.py ifeval.jsonl responses.jsonl

The first file has the 541 published prompts, the second one responses of models to some of them (``key``,
``response``). Every prompt is checked with the responses to it and with five others: three responses to other prompts
(one in upper case, one in lower case with all arguments of the instructions appended), one made of titles, lists,
placeholders and postscripts, and one in JSON. NLTK must find its data (punkt_tab).
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from spotcli.evaluation.tasks.ifeval import as_problem
from spotcli.grading.kinds import check_instructions

Row = dict[str, Any]


def rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def cases(prompts: list[Row], responses: list[Row]) -> Iterator[tuple[Row, str]]:
    """Each prompt with its responses."""
    own = {row["key"]: row["response"] for row in responses}
    texts = list(own.values())
    for index, row in enumerate(prompts):
        if row["key"] in own:
            yield row, own[row["key"]]
        arguments = " ".join(str(value) for given in row["kwargs"] for value in given.values())
        yield row, texts[index % len(texts)]
        yield row, texts[(7 * index + 3) % len(texts)].upper()
        yield row, f"{texts[(11 * index + 5) % len(texts)].lower().replace(',', '')}\n\nP.S. {arguments}"
        yield (
            row,
            (
                f"<<title>>\n\n* point one\n* point two\n* point three\n\n***\n\n{row['prompt']}\n\n"
                f"[name] [place] *bold one* *bold two* *bold three*\n******\nP.P.S {arguments}"
            ),
        )
        yield row, f"```json\n{json.dumps({'a': row['prompt']})}\n```"


def lm_eval_checkers() -> Any:
    """The checkers of lm-eval, without the rest of the package and what it requires."""
    import langdetect

    langdetect.DetectorFactory.seed = 0  # as in spot; otherwise the language of short texts changes between runs
    spec = find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("lm-eval is not installed: pip install --no-deps lm-eval")
    folder = Path(spec.submodule_search_locations[0])
    for name, path in (("lm_eval", folder), ("lm_eval.tasks", folder / "tasks")):
        module = ModuleType(name)
        module.__path__ = [str(path)]
        sys.modules[name] = module
    return importlib.import_module("lm_eval.tasks.ifeval.utils")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("responses", type=Path)
    arguments = parser.parse_args()
    peer = lm_eval_checkers()
    verdicts = checked = 0
    differing: Counter[tuple[int, str]] = Counter()
    for row, response in cases(rows(arguments.prompts), rows(arguments.responses)):
        problem = as_problem(row, where=str(row["key"]), source="")
        ours = check_instructions(response, problem.answer or "")
        theirs = peer.process_results(row, [response])
        checked += 1
        for mine, other in ((ours.strict, "inst_level_strict_acc"), (ours.loose, "inst_level_loose_acc")):
            verdicts += len(mine)
            for name, a, b in zip(row["instruction_id_list"], mine, theirs[other], strict=True):
                differing[row["key"], name] += a != b
    print(f"{checked:,} responses, {verdicts:,} verdicts, {differing.total():,} differ")
    for (key, name), number in sorted(differing.items()):
        if number:
            print(f"  prompt {key}, {name}: {number}")


if __name__ == "__main__":
    main()
