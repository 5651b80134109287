"""What the HTML pages share: colours that can be read, and a policy that names style and script."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from spotcli import html_pages


def luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[index : index + 2], 16) / 255 for index in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """WCAG's contrast of two colours, from 1 to 21."""
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_by_hand() -> None:
    assert contrast("#000", "#fff") == pytest.approx(21)
    assert contrast("#777777", "#fff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(scheme: str) -> None:
    css = Path(html_pages.__file__).with_suffix(".css").read_text(encoding="utf-8")
    light, dark = (
        css,
        "".join(re.findall(r"@media screen and \(prefers-color-scheme: dark\) \{(.*?)\} \}", css, re.DOTALL)),
    )
    colours: dict[str, str] = {}
    for block in [re.sub(r"@media.*?\} \}", "", light, flags=re.DOTALL), *([dark] if scheme == "dark" else [])]:
        colours |= dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6})", block))
    for name in ("ink", "soft", "warn", "good", "bad", "open", "accent", "del", "ins"):
        for ground in ("page", "card"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    assert contrast(colours["del"], colours["del-bg"]) >= 4.5
    assert contrast(colours["ins"], colours["ins-bg"]) >= 4.5
    # Marks need less, but the tint below them must not hide them.
    for name in ("good", "bad", "open"):
        assert contrast(colours[name], colours["tint"]) >= 3, name
    # A highlighted search hit has colours of its own, in both schemes.
    assert contrast("#1d2430", "#ffd84d") >= 4.5


def test_the_policy_names_style_and_script_by_their_hashes() -> None:
    # printf 'a{}' | openssl dgst -sha256 -binary | base64
    policy = html_pages.content_policy("a{}", "1")
    assert policy == (
        "default-src 'none'; style-src 'sha256-X1RutGBrXCt9KkSaXMK7tHftWiRscFHOhxsS8tv8hBk='; "
        "script-src 'sha256-a4ayc/80/OGda4BO/1o/V0etpOqiLx1JwB5S3beHW0s='; base-uri 'none'; form-action 'none'"
    )
