"""The paper's claim at small scale: what each objective gains, and what that costs.

    nox -s paper                                        one to two hours on two cores; the same command goes on
    nox -s paper -- --more                              also the settings from ``strong`` on: twice that
    python benchmarks/paper.py run --folder paper       the same by hand
    python benchmarks/paper.py report --folder paper    tables, and a figure beside the runs

All runs of a setting share pairs: made once, by the policy that it begins with and the symbolic oracle; in the first
setting they are those of ``recipes/smollm2-135m.yaml``. Rows of ``results.jsonl`` are runs, each with the outcome of
every problem, so all that is reported can be computed again. The plan, phase by phase:

    base      the untrained policy, with the sampling seeds of the trained ones
    sweep     each objective at three learning rates, those with rewards also at a second beta, at seed 0
    skills    the untrained policy on the test problems again, eight times: what it never, sometimes and always can
    seeds     each objective at its best, at two more seeds
    longer    SFT+ and SPoT-BCE at their best with twice the epochs, at seed 0
    strong    a policy that has most of the skill and slips: what SFT+ made with twice the epochs, its own answers to
              problems that it has not seen, and their repairs; all objectives at their best beta
    again     of those, SFT+ and SPoT-BCE at two more seeds, and with twice the epochs
    mixed     the strong policy again, SFT on its corrections and on its own right answers beside them, at three seeds
    own       the same on its own right answers alone
    wordy     the untrained policy again, in a format with more than twice the tokens an answer

The largest rate is tried at the first beta, and at the second with SPoT-BCE alone: it drifts several times further than
the bound allows, whatever the objective.

Best: the most right answers to the *validation* problems among the runs whose drift is at most ``DRIFT`` nats a token,
or the least drift where none is. No number that is reported comes from validation problems, and the problems of all
three splits are disjoint by their expressions.

Measured of each run: accuracy on held-out problems; accuracy on families that nothing was trained on, two of them
near (the same sums asked otherwise) and six far; drift as ``spot eval`` measures it. Seconds are the processor's,
because the experiment gives way to everything else on the machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import re
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from spotcli import jsonl, recipe_yaml
from spotcli.core.stats import Comparison, compare
from spotcli.evaluation.tasks import arithmetic as arithmetic_task
from spotcli.evaluation.tasks import neutral
from spotcli.policies import Answer, Request, Sampling, answer_seed
from spotcli.problems import arithmetic
from spotcli.records import Message, Problem

RECIPE = Path(__file__).parent.parent / "recipes" / "smollm2-135m.yaml"
MODEL = "builtin:smollm2-135m"
RATES = (1e-5, 3e-5, 1e-4)
BETAS = (0.1, 1.0)
SEEDS = (0, 1, 2)
SKILL_SEEDS = range(100, 108)
DRIFT = 0.02
TEST, VALIDATION, BATCH = 320, 160, 160
STRONG, MIXED, OWN, WORDY = "strong", "mixed", "own", "wordy"
FRESH = 640
"""Problems of the strong policy, which is wrong in fewer."""


@dataclass(frozen=True)
class Run:
    """One trained policy, or the untrained one."""

    objective: str
    rate: float = 0.0
    beta: float = 0.0
    """0 where the objective has none."""
    seed: int = 0
    """Of the order of the pairs, and of the answers that are measured."""
    epochs: int = 2
    setting: str = ""
    """What it begins with and learns from: ``strong``, ``mixed``, ``own``, ``wordy``, or as the recipe has it."""

    @property
    def key(self) -> str:
        setting = f"{self.setting}-" if self.setting else ""
        if self.objective == "none":
            return f"{setting}none-s{self.seed}"
        return f"{setting}{self.objective}-b{self.beta:g}-lr{self.rate:g}-e{self.epochs}-s{self.seed}"


# --- what is asked ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """Something to answer, and whether an answer is right."""

    id: str
    messages: list[Message]
    right: Callable[[str], bool]


def turns(*texts: str) -> list[Message]:
    """A chat that the user begins."""
    return [{"role": "assistant" if at % 2 else "user", "content": text} for at, text in enumerate(texts)]


def ends_in(number: int) -> Callable[[str], bool]:
    return lambda response: re.findall(r"-?\d+", response)[-1:] == [str(number)]


def holds(word: str) -> Callable[[str], bool]:
    return lambda response: re.search(rf"\b{re.escape(word)}\b", response, re.IGNORECASE) is not None


def arithmetic_questions(setting: str = "") -> list[Question]:
    """The test split's first problems, those of validation behind them."""
    return [
        Question(problem.id, problem.messages, partial(_right, problem))
        for problem in shown(setting, arithmetic.take(0, "test", TEST + VALIDATION))
    ]


def shown(setting: str, problems: list[Problem]) -> list[Problem]:
    """The problems with the worked examples of a setting."""
    if setting != WORDY:
        return problems
    return [one.model_copy(update={"prompt": [*WORDY_EXAMPLES, one.messages[-1]]}) for one in problems]


WORDY_EXAMPLES = turns(
    "6 * 8 + 15",
    "The first step is to multiply the two numbers in front: 6 * 8 = 48.\n"
    "The second step is to add what is left over to that: 48 + 15 = 63.\n"
    "Both steps are done, so the result of the whole sum is \\boxed{63}.",
    "12 + 30 - 7",
    "The first step is to add the two numbers in front: 12 + 30 = 42.\n"
    "The second step is to subtract what is left over from that: 42 - 7 = 35.\n"
    "Both steps are done, so the result of the whole sum is \\boxed{35}.",
)


def _right(problem: Problem, response: str) -> bool:
    return arithmetic_task.grade(response, problem).verdict == "right"


CAPITALS = (
    "France Paris;Japan Tokyo;Italy Rome;Spain Madrid;Germany Berlin;Greece Athens;Egypt Cairo;Cuba Havana;Peru Lima;"
    "Chile Santiago;Kenya Nairobi;Norway Oslo;Sweden Stockholm;Finland Helsinki;Denmark Copenhagen;Poland Warsaw;"
    "Austria Vienna;Hungary Budapest;Portugal Lisbon;Ireland Dublin;Russia Moscow;China Beijing;Thailand Bangkok;"
    "Vietnam Hanoi;Iran Tehran;Iraq Baghdad;Turkey Ankara;Canada Ottawa;Australia Canberra;Belgium Brussels;"
    "Bulgaria Sofia;Romania Bucharest;Mongolia Ulaanbaatar;Jamaica Kingston;Venezuela Caracas;Ecuador Quito;"
    "Uruguay Montevideo;Ghana Accra;Nepal Kathmandu;Lebanon Beirut"
)
PAST = (
    "go went;see saw;take took;give gave;write wrote;eat ate;run ran;sing sang;find found;keep kept;buy bought;"
    "think thought;teach taught;catch caught;bring brought;know knew;grow grew;throw threw;break broke;speak spoke;"
    "choose chose;drive drove;ride rode;rise rose;fall fell;feel felt;leave left;lose lost;make made;meet met;pay paid;"
    "say said;sell sold;send sent;sit sat;sleep slept;stand stood;swim swam;tell told;win won"
)
PLURALS = (
    "cat cats;dog dogs;book books;tree trees;box boxes;bus buses;baby babies;city cities;leaf leaves;knife knives;"
    "child children;man men;woman women;foot feet;tooth teeth;mouse mice;goose geese;house houses;car cars;"
    "watch watches;dish dishes;fox foxes;lady ladies;story stories;wolf wolves;half halves;hero heroes;"
    "potato potatoes;tomato tomatoes;church churches;bench benches;key keys;toy toys;day days;boy boys;apple apples;"
    "friend friends;game games;hand hands;idea ideas"
)
NAMES = ["Anna", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry", "Irene", "Jack"]
NOUNS = ["apple", "river", "stone", "cloud", "table", "horse", "paper", "window", "garden", "music", "silver", "orange"]
NEAR = ("one-step", "in-words")
FAR = ("largest", "lookup", "reverse", "capitals", "past", "plural")
EACH = 40


def families() -> dict[str, list[Question]]:
    """Questions of which no kind is trained on. The base policy has some of each kind right, and not all."""
    r = random.Random("families")

    def one_step() -> tuple[str, list[Message], Callable[[str], bool]]:
        a, b = r.randint(2, 60), r.randint(2, 39)
        shown = ("12 + 30", "12 + 30 = 42\n\\boxed{42}", "25 + 8", "25 + 8 = 33\n\\boxed{33}")
        return f"{a}+{b}", turns(*shown, f"{a} + {b}"), ends_in(a + b)

    def in_words() -> tuple[str, list[Message], Callable[[str], bool]]:
        a, b, c = r.randint(2, 9), r.randint(2, 9), r.randint(2, 30)
        shown = (
            "Take 6, multiply it by 8 and add 15.", "6 * 8 = 48\n48 + 15 = 63\n\\boxed{63}",
            "Take 12, add 30 and subtract 7.", "12 + 30 = 42\n42 - 7 = 35\n\\boxed{35}",
        )  # fmt: skip
        return f"{a}*{b}+{c}", turns(*shown, f"Take {a}, multiply it by {b} and add {c}."), ends_in(a * b + c)

    def largest() -> tuple[str, list[Message], Callable[[str], bool]]:
        a, b, c = r.sample(range(10, 999), 3)
        shown = ("Which is the largest of 48, 84 and 12?", "84", "Which is the largest of 71, 17 and 36?", "71")
        return f"{a}-{b}-{c}", turns(*shown, f"Which is the largest of {a}, {b} and {c}?"), ends_in(max(a, b, c))

    def lookup() -> tuple[str, list[Message], Callable[[str], bool]]:
        who, ages, at = r.sample(NAMES, 3), r.sample(range(11, 90), 3), r.randrange(3)
        facts = ", ".join(f"{name} is {age}" for name, age in zip(who, ages, strict=True))
        shown = (
            "Olga is 41, Paul is 23, Rosa is 65. How old is Paul?", "23",
            "Tom is 18, Uma is 77, Vera is 52. How old is Vera?", "52",
        )  # fmt: skip
        return f"{facts}-{at}", turns(*shown, f"{facts}. How old is {who[at]}?"), ends_in(ages[at])

    def reverse() -> tuple[str, list[Message], Callable[[str], bool]]:
        words = r.sample(NOUNS, 3)
        back = ", ".join(words[::-1])
        shown = ("Write in reverse order: red, green, blue", "blue, green, red",
                 "Write in reverse order: one, two, three", "three, two, one")  # fmt: skip
        asked = f"Write in reverse order: {', '.join(words)}"
        return back, turns(*shown, asked), lambda response: response.strip() == back

    def known(pairs: str, ask: str, *shown: str) -> list[tuple[str, list[Message], Callable[[str], bool]]]:
        split = [pair.split(" ") for pair in pairs.split(";")]
        return [(one, turns(*shown, ask.format(one)), holds(other)) for one, other in split]

    made = {
        "one-step": _distinct(one_step),
        "in-words": _distinct(in_words),
        "largest": _distinct(largest),
        "lookup": _distinct(lookup),
        "reverse": _distinct(reverse),
        "capitals": known(CAPITALS, "What is the capital of {}?"),
        "past": known(PAST, "Past tense of '{}'?", "Past tense of 'walk'?", "walked", "Past tense of 'come'?", "came"),
        "plural": known(PLURALS, "Plural of '{}'?", "Plural of 'bird'?", "birds", "Plural of 'glass'?", "glasses"),
    }
    return {name: [Question(f"{name}:{id}", asked, right) for id, asked, right in made[name]] for name in NEAR + FAR}


def _distinct(draw: Callable[[], tuple[str, list[Message], Callable[[str], bool]]]) -> list[Any]:
    seen: dict[str, Any] = {}
    while len(seen) < EACH:
        one = draw()
        seen.setdefault(one[0], one)
    return list(seen.values())


# --- one run ----------------------------------------------------------------------------------------------------------


def begins(folder: Path, setting: str) -> str:
    """The policy that a setting begins with."""
    return str(folder.resolve() / STRONG / "policy" / "checkpoint") if setting in (STRONG, MIXED, OWN) else MODEL


def prepare(folder: Path, setting: str, teacher: Run) -> None:
    """The pairs of a setting, and its first policy's log-probabilities of them. ``teacher`` makes the strong policy."""
    from spotcli.stages.rectify import rectify
    from spotcli.stages.sample import sample
    from spotcli.stages.train import train

    where, overrides = folder / setting, [f"model={begins(folder, setting)}"]
    where.mkdir(exist_ok=True)
    if setting in (MIXED, OWN):
        strong = folder / STRONG
        jsonl.write_rows(where / "data.jsonl", [*(corrections(strong) if setting == MIXED else ()), *own(strong)])
        return
    if setting == STRONG and not (where / "made").exists():
        (where / "policy").mkdir(exist_ok=True)
        train(recipe_yaml.load(RECIPE, settings(teacher)), folder=where / "policy")
        (where / "made").touch()
    if setting:
        taken = recipe_yaml.load(RECIPE).sample.limit
        assert taken is not None
        seen = taken if setting == STRONG else 0
        made = shown(setting, arithmetic.take(0, "train", seen + (FRESH if setting == STRONG else taken))[seen:])
        jsonl.write_rows(where / "problems.jsonl", [problem.model_dump(exclude_none=True) for problem in made])
        overrides += ["sample.problems=problems.jsonl", "sample.limit=null", f"sample.max_new_tokens={room(setting)}"]
    recipe = recipe_yaml.load(RECIPE, overrides)
    sample(recipe, folder=where)
    rectify(recipe, folder=where)
    # One step of any objective with a reference leaves the cache that all runs then begin with.
    overrides += ["train.max_steps=1", "train.save_strategy='no'", "train.output=first-step"]
    train(recipe_yaml.load(RECIPE, overrides), folder=where)
    shutil.rmtree(where / "first-step")


def corrections(strong: Path) -> Iterator[dict[str, Any]]:
    """The strong policy's, for SFT."""
    for row in jsonl.rows(strong / "data.jsonl"):
        yield {key: row[key] for key in ("id", "prompt", "chosen")}


def own(strong: Path) -> Iterator[dict[str, Any]]:
    """The strong policy's own right answers."""
    for row in jsonl.rows(strong / "samples.jsonl"):
        if row["verdict"] == "right":
            yield {"id": row["id"], "prompt": row["prompt"], "chosen": row["response"]}


def room(setting: str) -> int:
    """Tokens that an answer may have."""
    return 112 if setting == WORDY else arithmetic.MAX_NEW_TOKENS


def settings(run: Run) -> list[str]:
    return [
        f"seed={run.seed}", f"train.objective={run.objective}", f"train.learning_rate={run.rate}",
        f"train.beta={run.beta or 1.0}", f"train.num_train_epochs={run.epochs}",
        "train.save_strategy='no'", "train.data=../../data.jsonl",
    ]  # fmt: skip


def one(folder: Path, run: Run) -> dict[str, Any]:
    """Train and measure; the row of it."""
    from spotcli.stages.train import train

    started, row, base = processor_seconds(), {"key": run.key, **asdict(run)}, begins(folder, run.setting)
    if run.objective == "none":
        if run.seed in SKILL_SEEDS:
            outcomes = answers(base, arithmetic_questions(run.setting)[:TEST], run)
            return row | {"outcomes": {"test": outcomes}, "cpu_seconds": processor_seconds() - started}
        return row | measured(base, base, run) | {"cpu_seconds": processor_seconds() - started}
    where = folder / run.setting
    work = where / "work" / run.key
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    if (where / "reference.jsonl").exists():
        shutil.copy(where / "reference.jsonl", work)
    trained = train(recipe_yaml.load(RECIPE, [f"model={base}", *settings(run)]), folder=work)
    halfway = processor_seconds()
    row |= measured(trained.checkpoint, base, run)
    row |= {"steps": trained.steps, "pairs": trained.pairs, "final": trained.final}
    row |= {"train_cpu_seconds": halfway - started, "cpu_seconds": processor_seconds() - started}
    shutil.rmtree(work)
    return row


def measured(model: str, base: str, run: Run) -> dict[str, Any]:
    problems = arithmetic_questions(run.setting)
    outcomes = {
        "test": answers(model, problems[:TEST], run),
        "validation": answers(model, problems[TEST:], run),
        **{name: answers(model, questions, run) for name, questions in families().items()},
    }
    _POLICIES.clear()
    return {"outcomes": outcomes, "drift": drift(model, base)}


def answers(model: str, questions: list[Question], run: Run) -> dict[str, int]:
    """1 for each question that is answered rightly, else 0; an answer that was cut is not right."""
    policy = _policy(model, room(run.setting))
    known = {(question.id,): question for question in questions}
    requests = [
        Request(key, question.messages, answer_seed(run.seed, question.id, 0)) for key, question in known.items()
    ]
    said = [item for group in policy.answers(requests, len(requests), lambda request: False) for item in group]
    assert all(isinstance(item, Answer) for item in said)
    return {
        item.request.key[0]: int(item.finish_reason == "stop" and known[item.request.key].right(item.response))
        for item in sorted(said, key=lambda item: str(item.request.key))
    }


_POLICIES: dict[str, Any] = {}


def _policy(model: str, tokens: int) -> Any:
    from spotcli.policies.transformers import TransformersPolicy

    if model not in _POLICIES:
        sampling = Sampling(tokens, temperature=0.7, top_p=0.8)
        _POLICIES[model] = TransformersPolicy.load(model, sampling, batch_size=BATCH)
    return _POLICIES[model]


def drift(model: str, base: str) -> float:
    """Mean KL(base || model) in nats a token on the neutral prompts, as ``spot eval`` has it."""
    from spotcli.core.drift import token_kl

    policy = _exact(model)
    total = tokens = 0.0
    for answer, logits in _base_answers(base):
        total += float(token_kl(logits, policy.logits(answer)).sum())
        tokens += answer.tokens
    return total / tokens


def _exact(model: str) -> Any:
    from spotcli.policies.transformers import TransformersPolicy

    sampling = Sampling(neutral.MAX_NEW_TOKENS, temperature=1.0, top_p=1.0)
    return TransformersPolicy.load(model, sampling, batch_size=64, dtype="float32")


@lru_cache(maxsize=1)
def _base_answers(model: str) -> list[tuple[Answer, Any]]:
    """The base policy's answers to the neutral prompts, with its logits: 350 MB, once a process."""
    base = _exact(model)
    requests = [Request((one.id,), one.messages, answer_seed(0, one.id, 0)) for one in neutral.problems()]
    said = [item for group in base.answers(requests, len(requests), lambda request: False) for item in group]
    return [(item, base.logits(item)) for item in said]


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# --- the plan ---------------------------------------------------------------------------------------------------------


def plan(rows: dict[str, dict[str, Any]], *, more: bool) -> Iterator[list[Run]]:
    """The phases; the later ones depend on the results of those before."""
    yield [Run("none", seed=seed) for seed in SEEDS]
    yield [Run(objective, rate, beta) for objective, beta in CONFIGURATIONS for rate in rates(objective, beta)]
    yield [Run("none", seed=seed) for seed in SKILL_SEEDS]
    yield [
        Run(name, found["rate"], found["beta"], seed)
        for name in dict(CONFIGURATIONS)
        for found in [best(rows, name)]
        for seed in SEEDS[1:]
    ]
    yield [longer(rows, name) for name in LONGER]
    if not more:
        return
    yield [Run("none", setting=STRONG), *strong(rows)]
    yield [Run("none", seed=seed, setting=STRONG) for seed in SKILL_SEEDS]
    yield [*(Run("none", seed=seed, setting=STRONG) for seed in SEEDS[1:]), *again()]
    yield [Run("sft", 3e-5, seed=seed, setting=MIXED) for seed in SEEDS]
    yield [Run("sft", 3e-5, seed=seed, setting=OWN) for seed in SEEDS]
    yield [Run("none", setting=WORDY), *wordy()]


def strong(rows: dict[str, dict[str, Any]]) -> list[Run]:
    """Of the strong policy: each objective at its best, the two of most interest at all rates."""
    found = {name: best(rows, name) for name in dict(CONFIGURATIONS)}
    return [
        Run(name, rate, row["beta"], setting=STRONG)
        for name, row in found.items()
        for rate in (RATES if name in LONGER else [row["rate"]])
    ]


def again() -> list[Run]:
    """Of the strong policy: what the corrections alone do at more seeds, and in as many steps as with more rows."""
    chosen = (("sft", 3e-5, 0.0), ("spot-bce", 1e-5, 1.0))
    seeds = [Run(*each, seed, setting=STRONG) for each in chosen for seed in SEEDS[1:]]
    return [*seeds, *(Run(*each, epochs=4, setting=STRONG) for each in chosen)]


def wordy() -> list[Run]:
    """Of the longer answers: does a smaller beta do where there are more tokens?"""
    chosen = (("sft", 3e-5, 0.0), ("spot-bce", 3e-5, 0.1), ("spot-bce", 3e-5, 1.0))
    return [Run(*each, setting=WORDY) for each in chosen]


LONGER = ("sft", "spot-bce")


def longer(rows: dict[str, dict[str, Any]], objective: str) -> Run:
    found = best(rows, objective)
    return Run(objective, found["rate"], found["beta"], epochs=2 * found["epochs"])


REWARDED = ("spot-bce", "spot-bco", "dpo", "reward-sft")
CONFIGURATIONS = [("sft", 0.0), *((name, beta) for beta in BETAS for name in REWARDED)]


def rates(objective: str, beta: float) -> tuple[float, ...]:
    """Learning rates that are tried; see the head of this file."""
    return RATES if beta != BETAS[1] or objective == "spot-bce" else RATES[:2]


def best(rows: dict[str, dict[str, Any]], objective: str) -> dict[str, Any]:
    """The row of the learning rate and beta to take; see the head of this file."""
    tried = [
        rows[Run(name, rate, beta).key]
        for name, beta in CONFIGURATIONS
        if name == objective
        for rate in rates(name, beta)
    ]
    near = [row for row in tried if row["drift"] <= DRIFT]
    if not near:
        return min(tried, key=lambda row: row["drift"])
    return max(near, key=lambda row: (sum(row["outcomes"]["validation"].values()), -row["drift"]))


def run_main(options: argparse.Namespace) -> None:
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    spawn = multiprocessing.get_context("spawn")
    with jsonl.Appender(folder / "results.jsonl") as file:
        rows = {row["key"]: row for row in file.rows()}
        with ProcessPoolExecutor(options.lanes, mp_context=spawn) as pool:
            ready: set[str] = set()
            for phase in plan(rows, more=options.more):
                if (setting := phase[0].setting) not in ready:
                    teacher = longer(rows, "sft") if setting == STRONG else phase[0]
                    pool.submit(prepare, folder, setting, teacher).result()
                    ready.add(setting)
                todo = iter([run for run in phase if run.key not in rows])
                under_way: set[Future[dict[str, Any]]] = {
                    pool.submit(one, folder, run) for run in islice(todo, options.lanes)
                }
                while under_way:
                    done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    for each in done:
                        row = each.result()
                        file.append([row])
                        rows[row["key"]] = row
                        print(time.strftime("%T"), summary(row), flush=True)
                    under_way |= {pool.submit(one, folder, run) for run in islice(todo, len(done))}


def summary(row: dict[str, Any]) -> str:
    scores = {name: sum(each.values()) / len(each) for name, each in row["outcomes"].items()}
    text = " ".join(f"{name} {100 * score:.1f}" for name, score in scores.items())
    return f"{row['key']}: {text} drift {row.get('drift', 0.0):.5f}, {row['cpu_seconds']:.0f} s"


# --- the report -------------------------------------------------------------------------------------------------------

TITLES = {"sft": "SFT+", "spot-bce": "SPoT-BCE", "spot-bco": "SPoT-BCO", "dpo": "DPO", "reward-sft": "Reward-SFT"}
COLOURS = {"sft": "#444444", "spot-bce": "#0072b2", "spot-bco": "#56b4e9", "dpo": "#d55e00", "reward-sft": "#009e73"}


def report_main(options: argparse.Namespace) -> None:
    """Tables in Markdown to stdout, as far as there are runs for them, and the figure beside the runs.

    All phases up to the skills are needed.
    """
    rows = {row["key"]: row for row in jsonl.rows(options.folder / "results.jsonl")}
    slips = [run for phase in plan(rows, more=True) for run in phase if run.setting in (STRONG, MIXED, OWN)]
    first, longer_answers = by_seed(rows, slips), by_seed(rows, wordy())
    tables = [
        best_table(rows), sweep_table(rows), longer_table(rows),
        skill_table(rows, [runs_at_best(rows, objective) for objective in TITLES]),
        setting_table(rows, first), skill_table(rows, first), setting_table(rows, longer_answers),
    ]  # fmt: skip
    print(*("\n".join(table) for table in tables), sep="\n\n")
    draw(rows, options.folder / "gain-against-cost.svg")


def runs_at_best(rows: dict[str, dict[str, Any]], objective: str) -> list[dict[str, Any]]:
    """An objective's runs at its best beta and learning rate, by seed; as far as they are there."""
    found = best(rows, objective)
    keys = [Run(objective, found["rate"], found["beta"], seed).key for seed in SEEDS]
    return [rows[key] for key in keys if key in rows]


def by_seed(rows: dict[str, dict[str, Any]], runs: list[Run]) -> list[list[dict[str, Any]]]:
    """The trained ones that are there, those together that differ in their seeds alone."""
    found: dict[Run, list[dict[str, Any]]] = {}
    for run in runs:
        if run.objective != "none" and run.key in rows:
            found.setdefault(replace(run, seed=0), []).append(rows[run.key])
    return list(found.values())


def untrained(rows: dict[str, dict[str, Any]], runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the runs began with, with their sampling seeds."""
    alike = {MIXED: STRONG, OWN: STRONG}
    settings = (alike.get(run["setting"], run["setting"]) for run in runs)
    return [rows[Run("none", seed=run["seed"], setting=each).key] for run, each in zip(runs, settings, strict=True)]


def outcomes(runs: list[dict[str, Any]], *names: str) -> dict[str, list[float]]:
    """Each question's outcomes over the runs."""
    found: dict[str, list[float]] = {}
    for run in runs:
        for name in names:
            for id, right in run["outcomes"][name].items():
                found.setdefault(id, []).append(float(right))
    return found


def change(before: list[dict[str, Any]], after: list[dict[str, Any]], *names: str) -> Comparison:
    return compare(outcomes(before, *names), outcomes(after, *names))


def points(found: Comparison) -> str:
    return f"{100 * found.difference:+.1f} ({100 * found.low:+.1f} … {100 * found.high:+.1f})"


def gains(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> str:
    """On the test problems, of each seed, in points."""
    each = (100 * change([one], [run], "test").difference for one, run in zip(before, after, strict=True))
    return ", ".join(f"{gain:+.1f}" for gain in each)


def header(*cells: str) -> list[str]:
    return [f"| {' | '.join(cells)} |", "|---" * len(cells) + "|"]


def label(objective: str, beta: float) -> str:
    return TITLES[objective] + (f", beta {beta:g}" if beta else "")


def described(run: dict[str, Any]) -> str:
    """A run of another setting than the first."""
    name = label(run["objective"], run["beta"]) + {MIXED: ", own right answers too"}.get(run["setting"], "")
    if run["setting"] == OWN:
        name = "SFT, own right answers alone"
    return name + ("" if run["epochs"] == Run.epochs else f", {run['epochs']} epochs")


def best_table(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Each objective at its best. Intervals are over problems; the range is over seeds."""
    lines = header(
        "objective", "learning rate", "seeds", "test, %", "gain, points (95 %)", "of each seed", "beside SFT+ (95 %)",
        "near families", "far families", "drift, nats a token",
    )  # fmt: skip
    plain = runs_at_best(rows, "sft")
    for objective in TITLES:
        runs = runs_at_best(rows, objective)
        base = untrained(rows, runs)
        test = change(base, runs, "test")
        drifts = sorted(run["drift"] for run in runs)
        beside = "" if objective == "sft" else points(change(plain[: len(runs)], runs, "test"))
        cells = [
            label(objective, runs[0]["beta"]), f"{runs[0]['rate']:g}", str(len(runs)),
            f"{100 * test.before:.1f} → {100 * test.after:.1f}", points(test),
            gains(base, runs), beside, points(change(base, runs, *NEAR)),
            points(change(base, runs, *FAR)), f"{drifts[0]:.4f} … {drifts[-1]:.4f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def sweep_table(rows: dict[str, dict[str, Any]]) -> list[str]:
    """All configurations at seed 0: gain in points, change on far families, drift."""
    lines = header("objective", *(f"at {rate:g}" for rate in RATES))
    for objective, beta in CONFIGURATIONS:
        cells = [label(objective, beta)]
        for rate in rates(objective, beta):
            run = [rows[Run(objective, rate, beta).key]]
            test, far = (change(untrained(rows, run), run, *names) for names in (("test",), FAR))
            cells.append(f"{100 * test.difference:+.1f}; {100 * far.difference:+.1f}; {run[0]['drift']:.4f}")
        lines.append(f"| {' | '.join(cells + ['not tried'] * (len(RATES) + 1 - len(cells)))} |")
    return lines


def longer_table(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Twice the epochs, at seed 0: gain in points, change on far families, drift."""
    lines = header("objective", "epochs", "gain, points (95 %)", "far families", "drift, nats a token")
    for objective in LONGER:
        keys = [best(rows, objective)["key"], longer(rows, objective).key]
        for run in (rows[key] for key in keys if key in rows):
            test, far = (change(untrained(rows, [run]), [run], *names) for names in (("test",), FAR))
            name = label(objective, run["beta"])
            lines.append(f"| {name} | {run['epochs']} | {points(test)} | {points(far)} | {run['drift']:.4f} |")
    return lines


def setting_table(rows: dict[str, dict[str, Any]], table: list[list[dict[str, Any]]]) -> list[str]:
    """Runs of a setting, a line for all seeds of one, beside what they began with; drift is the seeds' mean."""
    lines = header(
        "objective", "learning rate", "test, %", "gain, points (95 %)", "of each seed", "near families", "far families",
        "drift, nats a token",
    )  # fmt: skip
    for runs in table:
        base = untrained(rows, runs)
        test, near, far = (change(base, runs, *names) for names in (("test",), NEAR, FAR))
        cells = [
            described(runs[0]), f"{runs[0]['rate']:g}", f"{100 * test.before:.1f} → {100 * test.after:.1f}",
            points(test), gains(base, runs), points(near), points(far), f"{fmean(run['drift'] for run in runs):.4f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def skill_table(rows: dict[str, dict[str, Any]], table: list[list[dict[str, Any]]]) -> list[str]:
    """Accuracy by how often the first policy is right, which other answers than those compared have told.

    Args:
        rows: all runs.
        table: the runs of each line: of one objective, and all of one setting.
    """
    setting = table[0][0]["setting"] if table else ""
    keys = [Run("none", seed=seed, setting=setting).key for seed in SKILL_SEEDS]
    tried = outcomes([rows[key] for key in keys if key in rows], "test")
    groups = {
        "never": [id for id, each in tried.items() if not sum(each)],
        "once or twice in eight": [id for id, each in tried.items() if 1 <= sum(each) <= 2],
        "more often": [id for id, each in tried.items() if sum(each) > 2],
    }
    lines = header("objective", *(f"{name} right: {len(ids)} problems" for name, ids in groups.items()))
    for runs in table:
        before, after = outcomes(untrained(rows, runs), "test"), outcomes(runs, "test")
        cells = [f"{described(runs[0])}, {runs[0]['rate']:g}"]
        for ids in groups.values():
            if not ids:
                cells.append("")
                continue
            old, new = (fmean(x for id in ids for x in each[id]) for each in (before, after))
            cells.append(f"{100 * old:.1f} → {100 * new:.1f} %")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def draw(rows: dict[str, dict[str, Any]], path: Path) -> None:
    """Gain against drift, seed 0: a line joins the learning rates of one objective and beta."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "spot"  # the same file from the same rows
    drawing = Figure(figsize=(9, 5), layout="constrained")
    axes = drawing.subplots()
    for objective, beta in CONFIGURATIONS:
        runs = [rows[Run(objective, rate, beta).key] for rate in rates(objective, beta)]
        gains = [change(untrained(rows, [run]), [run], "test") for run in runs]
        middle = [100 * gain.difference for gain in gains]
        below = [100 * (gain.difference - gain.low) for gain in gains]
        above = [100 * (gain.high - gain.difference) for gain in gains]
        axes.errorbar(
            [run["drift"] for run in runs], middle, yerr=[below, above],
            color=COLOURS[objective], linestyle=":" if beta == BETAS[0] else "-", marker="o", capsize=2, linewidth=1.2,
            markerfacecolor="white" if beta == BETAS[0] else None, label=label(objective, beta), elinewidth=0.6,
        )  # fmt: skip
    axes.axvline(DRIFT, color="#aa0000", linestyle="--", linewidth=1)
    axes.set(xscale="log", xlabel="drift, nats a token", ylabel="gain on held-out problems, points")
    axes.grid(color="#dddddd")
    drawing.legend(loc="outside right upper", fontsize="small")
    drawing.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, work in (("run", run_main), ("report", report_main)):
        command = commands.add_parser(name)
        command.set_defaults(work=work)
        command.add_argument("--folder", type=Path, default=Path("paper"))
        command.add_argument("--more", action="store_true", help="also other policies and answers; the report has all")
        command.add_argument("--lanes", type=int, default=2, help="runs at a time, of one thread each")
    options = parser.parse_args()
    options.work(options)


if __name__ == "__main__":
    main()
