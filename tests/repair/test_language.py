"""The language of a correction against that of the student's answer."""

from __future__ import annotations

import pytest

from spotcli.repair.language import changes_language

SOLUTIONS = {
    "English": "First we multiply 12 by 3, which is 36. Then we have to add 5 to it, so the sum is 42. Therefore the "
    "number of apples that we have is $\\boxed{42}$.",
    "German": "Zuerst multiplizieren wir 12 mit 3, das ist 36. Dann addieren wir 5 zu dem Ergebnis, und das ist 42. "
    "Somit ist die Zahl der Äpfel, die wir haben, $\\boxed{42}$, also sind es nicht mehr.",
    "French": "D'abord nous multiplions 12 par 3, ce qui donne 36. Ensuite nous ajoutons 5 et la somme est 42. Donc le "
    "nombre de pommes que nous avons dans les paniers est $\\boxed{42}$.",
    "Spanish": "Primero multiplicamos 12 por 3, que es 36. Luego tenemos que sumar 5 y la suma es 42. Entonces el "
    "número de las manzanas que tenemos en los cestos es $\\boxed{42}$.",
    "Chinese": "首先计算 12 乘以 3，得到 36。然后加上 5，得到 42。所以答案是 $\\boxed{42}$。",
    "Japanese": "まず 12 に 3 をかけると 36 です。次に 5 を足すと 42 になります。答えは $\\boxed{42}$ です。",
    "Russian": "Сначала умножим 12 на 3, получим 36. Затем прибавим 5, получим $\\boxed{42}$.",
    "Greek": "Πρώτα πολλαπλασιάζουμε 12 επί 3 και έχουμε 36. Μετά προσθέτουμε 5. $\\boxed{42}$",
    "Arabic": "أولا نضرب 12 في 3 فنحصل على 36. ثم نضيف 5. الجواب $\\boxed{42}$",
    "Korean": "먼저 12 에 3 을 곱하면 36 입니다. 다음으로 5 를 더합니다. 답은 $\\boxed{42}$",
}  # fmt: skip
"""The same solution in ten languages."""


@pytest.mark.parametrize("student", SOLUTIONS)
@pytest.mark.parametrize("correction", SOLUTIONS)
def test_a_translation_is_a_change_of_language(student: str, correction: str) -> None:
    text = SOLUTIONS[correction].replace("42", "41")
    assert changes_language(SOLUTIONS[student], "", text) is (student != correction)
    # The language of the problem does not matter.
    assert changes_language(SOLUTIONS[student], SOLUTIONS[correction], text) is (student != correction)


def test_one_foreign_sentence_is_a_change_of_language() -> None:
    english, chinese = SOLUTIONS["English"], SOLUTIONS["Chinese"]
    assert changes_language(english, "", f"{english}\n{chinese[:8]}")
    assert changes_language(chinese, "", f"{chinese}\nTherefore the answer is that.")


@pytest.mark.parametrize("language", SOLUTIONS)
@pytest.mark.parametrize(
    "more",
    [
        "\\begin{aligned} \\text{area} &= \\alpha \\cdot \\sin \\theta \\\\ \\end{aligned}",
        "α + β = γ, Δx ≤ πr, ℵ, ℝ, \U0001d465, ½, x²",
        "```python\nfor index in range(3):\n    total = total + index\n    print(total)\n```",
        "$f(x) = ax + b$, $\\mathbb{R}$, km/h, cm, Euler, Ångström",
        "1 + 2 = 3\n4 + 5 = 9",
    ],
)
def test_formulas_code_and_names_have_no_language(language: str, more: str) -> None:
    assert not changes_language(SOLUTIONS[language], "", f"{SOLUTIONS[language]}\n{more}")
    assert not changes_language(f"{SOLUTIONS[language]}\n{more}", "", SOLUTIONS[language])
    assert not changes_language(more, "", f"{more}\n2 + 2 = 4")


def test_foreign_words_of_the_problem_may_be_quoted() -> None:
    english = SOLUTIONS["English"]
    assert not changes_language(english, "How many 苹果 are there?", english.replace("apples", "苹果"))
    assert changes_language(english, "", english.replace("apples", "苹果"))
