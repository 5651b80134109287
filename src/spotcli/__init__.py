"""spot: surgical post-training on the command line and in Python.

problems -> samples -> pairs -> checkpoint -> scores

spot sample     answer problems with the policy and grade each answer       spotcli.sample
spot rectify    correct the wrong answers with the smallest edit            spotcli.rectify
spot inspect    show the corrections before training                        spotcli.review
spot train      train on the pairs and stay close to the starting policy    spotcli.train
spot eval       measure gains and drift                                     spotcli.evaluate

Names are imported when they are first used, so that ``import spotcli`` loads nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spotcli.api import evaluate, read, rectify, review, sample, train
    from spotcli.errors import (
        BudgetReached,
        DataError,
        MissingExtra,
        RecipeError,
        SettingsChanged,
        SpotError,
        Unfinished,
        UserError,
    )
    from spotcli.grading import Grade, grade
    from spotcli.recipe import Recipe
    from spotcli.records import Pair, Problem, Sample, Score
    from spotcli.stages.evaluate import EvalSummary
    from spotcli.stages.rectify import RectifySummary
    from spotcli.stages.review import FileSummary
    from spotcli.stages.sample import SampleSummary
    from spotcli.stages.train import TrainSummary

__version__ = "0.1.0.dev0"

__all__ = [
    "BudgetReached",
    "DataError",
    "EvalSummary",
    "FileSummary",
    "Grade",
    "MissingExtra",
    "Pair",
    "Problem",
    "Recipe",
    "RecipeError",
    "RectifySummary",
    "Sample",
    "SampleSummary",
    "Score",
    "SettingsChanged",
    "SpotError",
    "TrainSummary",
    "Unfinished",
    "UserError",
    "__version__",
    "evaluate",
    "grade",
    "read",
    "rectify",
    "review",
    "sample",
    "train",
]

_MODULES = {
    "api": ("evaluate", "read", "rectify", "review", "sample", "train"),
    "errors": (
        *("BudgetReached", "DataError", "MissingExtra", "RecipeError"),
        *("SettingsChanged", "SpotError", "Unfinished", "UserError"),
    ),
    "grading": ("Grade", "grade"),
    "recipe": ("Recipe",),
    "records": ("Pair", "Problem", "Sample", "Score"),
    "stages.evaluate": ("EvalSummary",),
    "stages.review": ("FileSummary",),
    "stages.rectify": ("RectifySummary",),
    "stages.sample": ("SampleSummary",),
    "stages.train": ("TrainSummary",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
"""Name -> the module that defines it."""


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'spotcli' has no attribute {name!r}")
    value = getattr(import_module(f"spotcli.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
