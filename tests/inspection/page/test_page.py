"""The page of ``spot inspect --html``: its content and its order, and that nothing in it can run, load or hide.

Expected numbers are worked out in the comments.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spotcli.errors import UserError
from spotcli.inspection import page
from spotcli.inspection.overview import Overview
from spotcli.inspection.pair_filter import PAIR_FIELDS
from spotcli.recipe import Recipe
from spotcli.records import Pair
from spotcli.stages.review import View, review
from tests.browser import CHROMIUM, opened
from tests.inspection.example_pairs import ATTACKS, PAIRS, inspect_file, write_hostile_pair, write_rows
from tests.page_outline import Outline, check_harmless
from tests.score_files import write_evaluation

in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")


def written(data: Path, **options: Any) -> str:
    inspect_file(data, html=Path("page.html"), **options)
    return (data.parent / "page.html").read_text(encoding="utf-8")


def row(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"p{number}",
        "prompt": "How many apples?",
        "rejected": "Tom has 3 apples.",
        "chosen": "Tom has 2 apples.",
        "change_ratio": 0.1,
        "verdict": "right",
        **more,
    }


def shown_ids(text: str) -> list[str]:
    return re.findall(r'<article id="row-[^"]*".*?<a href="#row-[^"]*">([^<]*)</a>', text, re.DOTALL)


def test_the_page_contains_the_selected_pairs(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = written(data)
    captured = capsys.readouterr()
    assert text.count("<article") == 3
    assert "Tom has </span><del><i>[-</i>3<i>-]</i></del><ins><i>{+</i>2<i>+}</i></ins> apples left." in text
    assert "<dt>dropped: wrong correction</dt><dd>2</dd>" in text
    assert "== " not in captured.out
    assert "page written to " in captured.out
    assert [file.name for file in data.parent.glob(".page*")] == []
    # Written again, the page contains the selected pairs only.
    assert shown_ids(written(data, where="verdict=wrong")) == ["word-2"]


def test_outliers_come_first_then_the_histogram_then_the_pairs(data: Path) -> None:
    text = written(data)
    check_harmless(text)
    places = [text.index(part) for part in ('id="outliers"', "pairs in each range", 'class="tools"', "<article")]
    assert places == sorted(places)
    index = text[places[0] : places[1]]
    lists = re.findall(r"<h3>(.*?)</h3>\n<ol>\n(.*?)</ol>", index, re.DOTALL)
    shown = {
        re.sub("<.*?>", "", title): re.findall(r">([^<]+)</a>(?: <span class=\"soft\">([^<]*))?", rows)
        for title, rows in lists
    }
    assert shown == {
        "y+ wrong 1": [("word-2", "")],
        "Largest change ratio": [("word-2", "0.900"), ("sum-1", "0.300"), ("word-1", "0.100")],
        # Characters of y+: 22, 22 and 5.
        "Longest": [("sum-1", "22 characters"), ("word-1", "22 characters"), ("word-2", "5 characters")],
        "Most expensive": [("word-1", "$0.0123")],
    }
    # Every entry leads to its pair.
    anchors = {item["id"] for item in Outline(text).named("article")}
    links = [item["href"] or "" for item in Outline(text).named("a")]
    assert {link.removeprefix("#") for link in links} == anchors
    # A ratio of 0.9 is above gamma 0.6: its bar has another colour, below a dashed line.
    assert re.search(r'<tr class="gamma"><th scope="row">0\.[67]0–0\.[78]0', text)
    assert "1 pair above gamma 0.6" in text


def test_without_a_limit_the_outliers_of_all_pairs_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "HTML_LIMIT", 14)
    monkeypatch.setattr("spotcli.inspection.page.outliers.LISTED", 2)
    rows = [row(number) for number in range(30)]
    rows[25] |= {"change_ratio": 0.5}
    rows[27] |= {"verdict": "undecided"}
    rows[28] |= {"chosen": "Tom has 2 apples. " * 5}
    data = write_rows(tmp_path / "data.jsonl", rows)
    # 14 of 30: the outliers and the first others, in the order of the file. Of equal pairs, the first are listed.
    assert shown_ids(written(data)) == [f"p{number}" for number in (*range(11), 25, 27, 28)]
    assert "contains the outliers and the first others, 14 of 30 pairs" in capsys.readouterr().err
    # A limit that is asked for takes the first.
    text = written(data, limit=5)
    assert shown_ids(text) == ["p0", "p1", "p2", "p3", "p4"]
    assert "undecided" not in text[text.index('id="outliers"') : text.index("pairs in each range")]
    assert "contains the first 5 of 30 pairs" in capsys.readouterr().err
    assert shown_ids(written(data, limit=0)) == []


def test_numbers_that_no_float_holds_are_no_outliers(tmp_path: Path) -> None:
    rows = [row(0, oracle={"name": "a", "cost": 10**400}), row(1, oracle={"name": "a", "cost": 1e308}), row(2)]
    text = written(write_rows(tmp_path / "data.jsonl", rows))
    assert "more than a number can hold" in text
    assert text.count("data-n-cost=") == 1


def show(data: Path, **options: Any) -> str:
    review(Recipe(), data=data, view=View(html=data.parent / "page.html"), **options)
    return (data.parent / "page.html").read_text(encoding="utf-8")


def test_damaged_duplicate_and_stale_rows_are_shown_and_come_first(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data.jsonl", [row(0), row(1), row(2), row(1)])
    digest = "0" * 16  # of another text
    event = {"event": "decision", "time": "2026-01-01", "key": ["p2", 0], "decision": "accept", "digest": digest}
    write_rows(tmp_path / "data.review.jsonl", [event])
    with data.open("a") as file:
        file.write('{"prompt": <b>\x1b[31m\n')
    text = show(data)
    check_harmless(text)
    index = text[text.index('id="outliers"') :]
    assert re.findall(r"<h3>(.*?) <span", index)[:3] == ["Damaged", "Duplicate", "Stale decision"]
    assert re.findall(r">([^<>]*)</a></li>", index)[:3] == [f"{data}:5", "p1", "p2"]
    assert "duplicate key, first in line 2" in text
    assert "{&#34;prompt&#34;: &lt;b&gt;␛[31m" in text or "{&quot;prompt&quot;: &lt;b&gt;␛[31m" in text
    # Both rows with one key have a place of their own.
    anchors = [item["id"] for item in Outline(text).named("article")]
    assert len(set(anchors)) == 5


def test_the_surprise_of_the_policy_is_an_outlier_a_filter_and_an_order(tmp_path: Path) -> None:
    pairs = [Pair.model_validate(row(number)) for number in range(3)]
    known = {"p0": 0.5, "p1": 2.25, "p2": None}
    numbers: dict[str, Any] = {**PAIR_FIELDS.numbers, "surprise": lambda pair: known[pair.id]}
    overview = Overview(0.6)
    for pair in pairs:
        overview.add(pair, matches=True)
    path = tmp_path / "page.html"
    fields = replace(PAIR_FIELDS, numbers=numbers)
    rows = page.PageRows("pair", "Pairs", len(pairs), lambda number: page.Shown(pairs[number]), fields)
    page.write_page(path, overview.summary(tmp_path / "data.jsonl", {}, path), rows, None)
    text = path.read_text(encoding="utf-8")
    index = text[text.index("Largest mean surprise") : text.index("<h3>Longest")]
    assert re.findall(r">(p\d)</a> <span class=\"soft\">([^<]*)", index) == [
        ("p1", "2.25 nats/token"),
        ("p0", "0.5 nats/token"),
    ]
    assert text.count("data-n-surprise=") == 2
    assert 'data-range="surprise"' in text
    assert '<option value="surprise">' in text


def test_samples_replies_and_mixed_files_have_a_page(tmp_path: Path) -> None:
    attack = "</div><script>alert(1)</script>"
    sample: dict[str, Any] = {
        "id": "s",
        "prompt": attack,
        "response": f"so {attack}",
        "verdict": "wrong",
        "answer": attack,
    }
    sample |= {"sampling": {"model": attack}, "extracted": attack}
    reply = {"kind": "reply", "key": "k", "id": attack, "trial": 0, "sample": "d", "attempt": 0, "oracle": attack}
    reply |= {"version": "1", "prompt": "1", "mode": "rewrite", "fence": "f", "text": attack, "finish_reason": "stop"}
    reply |= {"reasoning": attack, "reason": attack, "model": attack, "cost": 0.25}
    money = {"kind": "sent", "key": "k2", "reserved": 0.5}
    for name, rows, articles in (
        ("samples", [sample, sample | {"id": "t", "verdict": "undecided", "reason": attack}], 2),
        ("replies", [reply, money], 2),
        ("mixed", [sample, row(0), reply], 3),
    ):
        text = show(write_rows(tmp_path / f"{name}.jsonl", rows))
        check_harmless(text)
        assert text.count("<article") == articles, name
        shown = " ".join(Outline(text).text)
        assert "alert(1)" in shown
    assert {"Samples", "Pairs", "Replies"} <= set(re.findall(r'<h2 class="kind">(\w+)', text))


def test_worked_examples_are_written_once(tmp_path: Path) -> None:
    examples = "\n".join(f"Example {number}: 1 + 1 = 2" for number in range(9))
    rows = [row(number, prompt=f"{examples}\nHow many are {number} apples?") for number in range(5)]
    text = show(write_rows(tmp_path / "data.jsonl", rows))
    assert text.count("Example 3: 1 + 1 = 2") == 1
    assert text.count("⋯ 9 lines that the prompts of all rows begin with") == 5
    for number in range(5):
        assert f"How many are {number} apples?" in text


@pytest.mark.parametrize("name", ATTACKS)
def test_hostile_text_is_harmless(name: str, tmp_path: Path) -> None:
    check_harmless(written(write_hostile_pair(tmp_path, ATTACKS[name])))


HOSTILE = (
    "</script><script>alert('run')</script><img src=http://evil.example/x onerror=alert(1)></pre></style>"
    "<style>@import url(http://evil.example/s)</style><svg onload=alert(2)><a href=javascript:alert(3)>x</a>"
    "</div></article><details ontoggle=alert(4) open>&lt;b&gt;&#x202e; \u202egnp.exe\u2066 \x00 {{ 7*7 }}"
    " ' onclick='x \" onclick=\"y"
)


def hostile_rows() -> list[dict[str, Any]]:
    text = {"prompt": HOSTILE, "answer": HOSTILE, "source": HOSTILE, "oracle": {"name": HOSTILE}}
    long = "x" * 1_000_000
    return [
        row(0, id=f"id {HOSTILE}", **text | {"rejected": f"same {HOSTILE} 1", "chosen": f"same {HOSTILE} 2 {HOSTILE}"}),
        row(1, rejected=f"{long} is 3", chosen=f"{long} is 4"),
        row(2, rejected="", chosen="2") | {"rejected": None},
        row(3),
    ]


def test_an_answer_of_a_megabyte_is_whole_and_folded(tmp_path: Path) -> None:
    text = written(write_rows(tmp_path / "data.jsonl", hostile_rows()))
    check_harmless(text.replace("@import", "import"))  # it is in an answer, as text
    assert sum(map(len, re.findall("x{1000,}", text))) == 1_000_000
    assert re.search(r'<details class="kept"><summary>99\d,\d{3} characters</summary>x{990000}', text)
    assert "{{ 7*7 }}" in text


@in_a_browser
def test_in_a_browser_nothing_runs_is_requested_or_logged(tmp_path: Path) -> None:
    written(write_rows(tmp_path / "data.jsonl", hostile_rows()))
    path = tmp_path / "page.html"

    async def look() -> None:
        for width, scheme in ((390, "dark"), (1200, "light")):
            async with opened(path, width=width, scheme=scheme) as shown:
                wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
                assert await shown.script(wide) <= 0
                assert await shown.script("[document.scripts.length, document.styleSheets.length]") == [1, 1]
                assert await shown.script("document.querySelectorAll('img, link, [onload], [onclick]').length") == 0
                assert await shown.script("document.querySelectorAll('article').length") == 4
                assert "alert('run')" in await shown.script("document.querySelector('article').innerText")
                # Everything that the page has opens and is found, and still nothing runs.
                await shown.script("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
                await shown.press("/", *"<script>alert")
                assert await shown.script("document.querySelector('output').value") == "1 of 4 pairs"
                assert await shown.script(wide) <= 0
                assert (shown.logged, shown.dialogs) == ([], [])
                assert shown.requested == [path.resolve().as_uri()]
                # What somebody could add to the page is refused by its policy.
                added = "Object.assign(document.createElement('script'), { textContent: 'window.ran = 1' })"
                await shown.script(f"document.body.append({added})")
                assert await shown.script("window.ran === undefined")
                assert "Content Security Policy" in " ".join(shown.logged)

    asyncio.run(look())


COUNT = "document.querySelector('output').value"
SHOWN = "[...document.querySelectorAll('article:not([hidden]) > header a')].map((link) => link.textContent)"
CURRENT = "document.querySelector('article.current > header a')?.textContent"


def chip(filter: str, value: str) -> str:
    return f"document.querySelector('[data-filter={filter}] [value=\"{value}\"]').parentElement"


@in_a_browser
def test_in_a_browser_search_filters_and_keys_work(tmp_path: Path) -> None:
    rows = [row(number, oracle={"name": "gpt" if number % 2 else "symbolic"}) for number in range(12)]
    rows[3] |= {"verdict": "wrong", "change_ratio": 0.5}
    rows[4] |= {"verdict": "wrong", "change_ratio": 0.7}
    rows[6] |= {"verdict": "undecided", "chosen": "Tom has 2 apples.\nÉTÉ"}
    rows[7] |= {"review": "reject"}
    kept = "\n".join(f"line {number}" for number in range(30))
    rows[8] |= {"rejected": f"{kept}\nso 3", "chosen": f"{kept}\nso 2"}
    written(write_rows(tmp_path / "data.jsonl", rows))

    async def drive() -> None:
        async with opened(tmp_path / "page.html") as shown:
            assert await shown.script(COUNT) == "12 of 12 pairs"
            groups = (
                "[...document.querySelectorAll('fieldset:not([hidden]) legend')].map((legend) => legend.textContent)"
            )
            assert await shown.script(groups) == [
                *("Verdict", "Decision", "Oracle"),
                *("Change ratio", "First edit", "Length", "Order"),
            ]
            # Chips of one filter add up, different filters narrow down.
            await shown.click(chip("verdict", "wrong"))
            assert await shown.script(SHOWN) == ["p3", "p4"]
            await shown.click(chip("verdict", "undecided"))
            assert await shown.script(SHOWN) == ["p3", "p4", "p6"]
            await shown.click(chip("oracle", "symbolic"))
            assert await shown.script(SHOWN) == ["p4", "p6"]
            await shown.click("document.querySelector('[data-range=ratio] input')")
            await shown.press(*"0.6")
            assert await shown.script(SHOWN) == ["p4"]
            assert await shown.script(COUNT) == "1 of 12 pairs"
            # A link to a pair that is filtered out shows all again.
            await shown.click(
                "document.querySelector('.outliers a[href$=\"" + page.page_rows._anchor(("p3", 0)) + "\"]')"
            )
            assert await shown.script(COUNT) == "12 of 12 pairs"
            assert await shown.script(CURRENT) == "p3"
            await shown.click(chip("decision", "reject"))
            assert await shown.script(SHOWN) == ["p7"]
            await shown.press("Escape")
            # The search finds the text of y- and of y+ across edits, whatever the case.
            await shown.press("/", *"TOM HAS 2 APPLES.")
            assert await shown.script(COUNT) == "11 of 12 pairs"
            await shown.press("Escape", "/", *"has 3 apples")
            assert await shown.script(COUNT) == "11 of 12 pairs"
            await shown.press("Escape", "/", *"été")
            assert await shown.script(SHOWN) == ["p6"]
            # What is in a fold is found, shown and folded again.
            folded = "document.querySelector('details.kept').open"
            await shown.press("Escape", "/", *"line 5")
            assert await shown.script(SHOWN) == ["p8"]
            assert await shown.script(folded)
            assert await shown.script("CSS.highlights.get('hit').size") > 0
            await shown.press("Escape")
            assert not await shown.script(folded)
            await shown.press("/", *"nowhere")
            assert await shown.script("[document.querySelector('.empty').hidden, " + COUNT + "]") == [
                False,
                "0 of 12 pairs",
            ]
            # Enter goes to the first match, j and k to the next and the previous one; keys in the search are text.
            await shown.press("Escape", "/", *"apples", "Enter")
            assert await shown.script(CURRENT) == "p0"
            await shown.press("Escape", "j", "j")
            assert await shown.script(CURRENT) == "p2"
            await shown.press("k")
            assert await shown.script(CURRENT) == "p1"
            top = await shown.script("document.querySelector('article.current').getBoundingClientRect().top")
            assert 0 < top < 200
            # The largest ratio first.
            order = "document.querySelector('.filters select')"
            await shown.script(
                f"{order}.value = 'ratio'; {order}.dispatchEvent(new Event('input', {{ bubbles: true }}))"
            )
            assert (await shown.script(SHOWN))[:2] == ["p4", "p3"]
            assert (shown.logged, shown.dialogs) == ([], [])

    asyncio.run(drive())


@in_a_browser
def test_in_a_browser_without_scripts_copied_and_printed(tmp_path: Path) -> None:
    kept = "\n".join(f"line {number}" for number in range(30))
    rows = [row(0), row(1, rejected=f"{kept}\nso 3", chosen=f"{kept}\nso 2")]
    rows[1]["rejected"] += "\na b c d e f g h i"
    rows[1]["chosen"] += "\na B c D e F g H i I"
    written(write_rows(tmp_path / "data.jsonl", rows))

    async def read() -> None:
        async with opened(tmp_path / "page.html", scripts=False) as shown:
            text = await shown.script("document.querySelector('article').innerText")
            assert "apples" in text
            assert await shown.script("document.querySelector('.tools').offsetHeight") == 0
            # A fold opens without a script.
            fold = "document.querySelector('details.kept')"
            assert not await shown.script(f"{fold}.open")
            await shown.click(f"{fold}.querySelector('summary')")
            assert await shown.script(f"{fold}.open")
            # Marks of edits are invisible on the screen, part of a copied text, and printed.
            mark = "getComputedStyle(document.querySelector('.answer i')).fontSize"
            assert await shown.script(mark) == "0px"
            await shown.script("getSelection().selectAllChildren(document.querySelectorAll('.answer')[0])")
            assert (await shown.script("getSelection().toString()")).strip() == "Tom has [-3-]{+2+} apples."
            await shown.script("getSelection().selectAllChildren(document.querySelectorAll('.answer')[1])")
            copied = (await shown.script("getSelection().toString()")).splitlines()
            assert copied[-3:] == ["so [-3-]{+2+}", "[-a b c d e f g h i-]", "{+a B c D e F g H i I+}"]
            await shown.call("Emulation.setEmulatedMedia", media="print")
            assert await shown.script(mark) != "0px"
            assert shown.logged == []

    asyncio.run(read())


@in_a_browser
def test_in_a_browser_problems_are_filtered_by_their_change(tmp_path: Path) -> None:
    base, tuned = write_evaluation(tmp_path)
    path = tmp_path / "changes.html"
    review(Recipe(), data=tuned, against=base, view=View(html=path))
    check_harmless(path.read_text(encoding="utf-8"))

    async def drive() -> None:
        async with opened(path, width=390, scheme="dark") as shown:
            assert await shown.script(COUNT) == "4 of 4 problems"
            await shown.script("document.querySelector('.filters').open = true")
            await shown.click(chip("change", "lost"))
            assert await shown.script(SHOWN) == ["gone"]
            assert "42" in await shown.script("document.querySelector('article:not([hidden]) del').textContent")
            assert (shown.logged, shown.dialogs) == ([], [])

    asyncio.run(drive())


def test_page_in_a_missing_folder_raises_user_error(data: Path) -> None:
    with pytest.raises(UserError, match="failed to write the page"):
        inspect_file(data, html=Path("no/such/folder/page.html"))


def test_the_page_is_accessible(data: Path) -> None:
    outline = Outline(written(data))
    assert len(outline.named("h1")) == 1
    assert outline.named("html")[0]["lang"] == "en"
    assert all(item.get("scope") in ("col", "row") for item in outline.named("th"))
    assert all(item.get("aria-hidden") == "true" for item in outline.named("svg"))
    assert all(item.get("aria-label") for name in ("input", "select") for item in outline.named(name))
    assert len(PAIRS) == len(outline.named("article"))
