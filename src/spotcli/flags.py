"""The commands' options that are not keys of the recipe, as types of parameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer


def completed(kind: str) -> Callable[[str], list[str]]:
    """Return the function that completes a value of a kind in ``completion.KINDS``."""

    def complete(incomplete: str) -> list[str]:
        from spotcli import completion

        return completion.values(kind, incomplete)

    return complete


def _option(panel: str, text: str, *names: str, kind: str | None = None, **more: Any) -> Any:
    if kind:
        more["autocompletion"] = completed(kind)
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


def _argument(text: str, metavar: str, kind: str, **more: Any) -> Any:
    return typer.Argument(metavar=metavar, help=text, autocompletion=completed(kind), **more)


# Shared by several commands

RecipeArgument = Annotated[Path, _argument("The recipe, a YAML file.", "RECIPE", "recipe", show_default=False)]
RecipeFile = Annotated[
    Path | None,
    _option("Input and output", "Read settings from this recipe.", "--recipe", metavar="FILE", kind="recipe"),
]
Overrides = Annotated[
    list[str] | None,
    _option(
        "Input and output",
        "Override a key of the recipe; repeatable.",
        "--set",
        "-s",
        metavar="KEY=VALUE",
        kind="override",
    ),
]
Fresh = Annotated[bool, _option("Run", "Start over; the old output is renamed.", "--fresh")]
AsJson = Annotated[bool, _option("Run", "Print the summary as one JSON object.", "--json")]
Verbose = Annotated[
    bool, _option("Run", "Print the source of each setting, and warnings of libraries.", "--verbose", "-v")
]
Quiet = Annotated[bool, _option("Run", "Print only results and errors.", "--quiet", "-q")]
Version = Annotated[bool, typer.Option("--version", help="Show the version and exit.")]

# spot sample

Decontaminate = Annotated[
    bool, _option("Input and output", "Leave out problems that occur in the evaluation tasks.", "--decontaminate")
]
Shard = Annotated[
    str | None, _option("Input and output", "Only shard I of N of the problems. \\[default: all]", metavar="I/N")
]
Grade = Annotated[
    str | None,
    _option(
        "Input and output", "Grade the answers in this file (-: stdin); no model is asked.", metavar="FILE", kind="rows"
    ),
]
Merge = Annotated[bool, _option("Input and output", "Merge the finished shards into one file.", "--merge")]

# spot rectify

Export = Annotated[Path | None, _option("By hand", "Write the open cases to a file that you edit.", metavar="FILE")]
Import = Annotated[Path | None, _option("By hand", "Read the edited file.", "--import", metavar="FILE")]
PlanRequests = Annotated[bool, _option("Run", "Show the planned requests and their cost; send nothing.", "--dry-run")]
PushToHub = Annotated[
    str | None,
    _option(
        "Input and output",
        "After a complete run, upload the pairs to this private dataset, as `spot push` does. \\[default: no upload]",
        "--push-to-hub",
        metavar="ORG/NAME",
    ),
]
Replay = Annotated[bool, _option("Run", "Judge the recorded replies again; send nothing.", "--replay")]

# spot inspect

Data = Annotated[Path, _argument("Pairs, samples, replies or scores; - reads stdin.", "DATA", "rows")]
Id = Annotated[str | None, _option("Pairs", "Show only the pair with this id.", metavar="ID")]
Where = Annotated[
    str | None,
    _option(
        "Pairs",
        "Show only rows that match, such as 'ratio>0.3 and (verdict=wrong or not id~easy)'; of scores, such as lost.",
        metavar="EXPR",
    ),
]
BaseScores = Annotated[
    Path | None,
    _option(
        "Input and output",
        "Scores of the base model to compare with. \\[default: those that the summary beside DATA names]",
        "--against",
        metavar="FILE",
        kind="rows",
    ),
]
ShownPairs = Annotated[
    int | None,
    _option("Pairs", "Show at most N pairs; 0: only the overview. \\[default: all]", metavar="N", min=0),
]
Html = Annotated[Path | None, _option("Input and output", "Write an HTML page instead.", metavar="FILE")]

SampledPairs = Annotated[
    int | None,
    _option(
        "Pairs",
        "Audit: decide about N random pairs and get the error rate.",
        "--sample",
        metavar="N",
        min=1,
    ),
]
SampleSeed = Annotated[int, _option("Pairs", "Seed of --sample.", "--seed", metavar="S", min=0)]

Tokens = Annotated[
    bool, _option("Pairs", "Show what is trained: the policy's tokens, and which carry loss.", "--tokens")
]
Surprise = Annotated[
    bool,
    _option("Pairs", "Compute the policy's surprise per token of y+ and y-, as far as it is not known.", "--surprise"),
]
Sort = Annotated[
    Literal["file", "ratio", "surprise", "length", "similarity"],
    _option(
        "Pairs", "Order: file; or ratio, surprise, length or similarity, the largest first.", "--sort", metavar="ORDER"
    ),
]

# spot train

EstimateOnly = Annotated[
    bool, _option("Estimate", "Estimate training time and memory without loading weights.", "--dry-run")
]
Device = Annotated[str, _option("Estimate", "GPU to estimate for.", metavar="NAME")]
Mfu = Annotated[
    float, _option("Estimate", "Fraction of the device's peak FLOP/s that is used.", metavar="X", min=0.01, max=1)
]

# spot eval

Model = Annotated[
    str,
    _argument("A folder, a model of the Hugging Face hub or a built-in model.", "MODEL", "model", show_default=False),
]
Against = Annotated[
    str | None, _option("Evaluation", "Base model, for a paired test and the drift.", metavar="MODEL", kind="model")
]
Also = Annotated[
    list[str] | None,
    _option(
        "Evaluation",
        "Another model for the tables, or a file of its scores; repeatable.",
        metavar="MODEL",
        kind="model",
    ),
]
Rescore = Annotated[bool, _option("Run", "Grade the saved answers again; ask no model.", "--rescore")]
PlanAnswers = Annotated[
    bool, _option("Run", "Show the requests and the losses that they can exclude; ask no model.", "--dry-run")
]

# spot merge

Adapter = Annotated[str, _argument("The folder of the LoRA adapter.", "ADAPTER", "model", show_default=False)]
MergedFolder = Annotated[
    Path,
    _option("Input and output", "Folder of the merged model.", "--output", "-o", metavar="FOLDER"),
]
MergedDtype = Annotated[
    Literal["auto", "bfloat16", "float16", "float32"],
    _option("Run", "Number format of the weights; auto is that of the base model.", "--dtype", metavar="NAME"),
]

# spot push

PushedData = Annotated[Path, _argument("The file of pairs.", "DATA", "rows")]
To = Annotated[
    str, _option("Input and output", "The dataset on the hub.", "--to", metavar="ORG/NAME", show_default=False)
]
PushedSamples = Annotated[
    Path | None, _option("Input and output", "Upload these samples too.", "--samples", metavar="FILE", kind="rows")
]
Public = Annotated[bool, _option("Input and output", "Create a public dataset. \\[default: private]", "--public")]
Licence = Annotated[
    str | None, _option("Input and output", "Licence for the card. \\[default: unknown]", "--license", metavar="NAME")
]
CardOnly = Annotated[bool, _option("Run", "Write the card and show what would be uploaded.", "--dry-run")]
Yes = Annotated[bool, _option("Run", "Upload without asking.", "--yes", "-y")]

# spot trace, spot why, spot diff


def _runs(incomplete: str) -> list[str]:
    from spotcli.receipts.run_files import run_folders

    return [str(path) for path in run_folders() if str(path).startswith(incomplete)]


def _models(incomplete: str) -> list[str]:
    from spotcli.receipts.run_files import trained_folders

    return [str(path) for path in trained_folders() if str(path).startswith(incomplete)]


def _ids(ctx: typer.Context, incomplete: str) -> list[str]:
    from spotcli.receipts.run_files import ids_of

    return ids_of(Path(ctx.params.get("folder") or "."), incomplete)


TracedId = Annotated[
    str, typer.Argument(metavar="ID", help="The id of the row.", show_default=False, autocompletion=_ids)
]
InRun = Annotated[
    Path,
    _option(
        "Input and output",
        "Folder of the run. \\[default: this one]",
        "--in",
        metavar="FOLDER",
        autocompletion=_runs,
        show_default=False,
    ),
]
Full = Annotated[bool, _option("Run", "Print long texts in full.", "--full")]
TrainedModel = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT",
        help="The folder of a trained model, or of a checkpoint in it.",
        autocompletion=_models,
        show_default=False,
    ),
]
FirstRun = Annotated[
    Path, typer.Argument(metavar="RUN", help="The folder of a run.", autocompletion=_runs, show_default=False)
]
SecondRun = Annotated[
    Path,
    typer.Argument(metavar="OTHER", help="The folder of another run.", autocompletion=_runs, show_default=False),
]

# spot export

ExportedProblems = Annotated[Path, typer.Argument(metavar="FILE", help="Samples, problems or pairs.")]
ForTrainer = Annotated[
    Literal["trl", "verl"],
    _option("Input and output", "The library that trains.", "--for", metavar="NAME", show_default=False),
]
ExportFolder = Annotated[Path, _option("Input and output", "Write to this folder.", "--output", "-o", metavar="FOLDER")]
StartModel = Annotated[
    str, _option("Model", "The model to start from: a folder or a name on the hub.", "--model", "-m", metavar="MODEL")
]
ExportedGrader = Annotated[
    str | None,
    _option("Run", "Grades problems that name none. \\[default: the samples']", "--grader", metavar="NAME"),
]
ExportLimit = Annotated[
    int | None, _option("Input and output", "Only the first N problems. \\[default: all]", metavar="N", min=1)
]

# spot run

RunFolder = Annotated[
    Path | None,
    _option("Input and output", "Folder of the run. \\[default: runs/NAME]", "--output", "-o", metavar="FOLDER"),
]
StageName = Literal["sample", "rectify", "train", "eval"]
FromStage = Annotated[
    StageName, _option("Run", "Start at this stage; those before it must be complete.", "--from", metavar="STAGE")
]
UntilStage = Annotated[StageName, _option("Run", "Stop after this stage.", "--until", metavar="STAGE")]
StatusFolder = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="The folder of a run, such as runs/demo.", autocompletion=_runs)
]

# spot plan

NoProbe = Annotated[bool, _option("Run", "Ask no model: plan from the files in the folder.", "--no-probe")]
PlanDevice = Annotated[
    str | None, _option("Run", "GPU that training is estimated for. \\[default: h100]", "--device", metavar="NAME")
]
MaxHours = Annotated[
    float | None,
    _option("Run", "Stop the run after this time, over all starts.", "--max-hours", metavar="HOURS", min=0.0),
]
MaxCost = Annotated[
    float | None,
    _option("Run", "Stop the run before oracles cost more US dollars.", "--max-cost", metavar="USD", min=0.0),
]

# spot init

RecipeTarget = Annotated[
    Path, typer.Argument(metavar="PATH", help="The file to write, or a folder for recipe.yaml.", show_default=True)
]
TemplateName = Annotated[
    str | None,
    _option("Recipe", "Start from this template; --list shows them.", "--template", metavar="NAME", kind="template"),
]
ListTemplates = Annotated[bool, _option("Recipe", "List the templates and write nothing.", "--list")]
Schema = Annotated[bool, _option("Recipe", "Print the JSON schema of a recipe, for editors.", "--schema")]
NewModel = Annotated[
    str | None,
    _option(
        "Recipe",
        "The policy: a folder, a model of the hub, or a provider's.",
        "--model",
        "-m",
        metavar="MODEL",
        kind="model",
    ),
]
NewProblems = Annotated[
    str | None,
    _option(
        "Recipe",
        "The problem set: a file, hf:ORG/NAME or builtin:arithmetic.",
        "--problems",
        metavar="SET",
        kind="problems",
    ),
]
NewOracle = Annotated[
    str | None,
    _option(
        "Recipe",
        "The oracle: a provider's model, symbolic, human or policy.",
        "--oracle",
        metavar="MODEL",
        kind="oracle",
    ),
]
NewTasks = Annotated[
    list[str] | None,
    _option("Recipe", "A task or a file of held-out problems; repeatable.", "--task", metavar="NAME", kind="task"),
]
NewBaseUrl = Annotated[
    str | None, _option("Recipe", "Base URL of the endpoint that serves the model.", "--base-url", metavar="URL")
]
Gpus = Annotated[
    int | None, _option("Recipe", "GPUs. \\[default: those of this machine]", "--gpus", metavar="N", min=0)
]
GpuMemory = Annotated[
    float | None,
    _option(
        "Recipe", "Memory of a GPU in GB. \\[default: as reported by nvidia-smi]", "--gpu-memory", metavar="X", min=1
    ),
]
Defaults = Annotated[bool, _option("Run", "Ask nothing; use the defaults for this machine.", "--yes", "-y")]
Force = Annotated[bool, _option("Run", "Replace an existing file.", "--force")]
