"""Can everything that people and models wrote be read, code and differences included, in both themes?"""

import re
from pathlib import Path

import pytest

from app.web.highlighting import CLASSES

STATIC = Path(__file__).parent.parent.parent / "static"
CONTENT = (STATIC / "content.css").read_text()
TOKENS = {
    name: (light, dark)
    for name, light, dark in re.findall(
        r"(--[\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", (STATIC / "app.css").read_text() + CONTENT
    )
}


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, 0 to 1 (WCAG 2.2, section "relative luminance")."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast ratio, 1 to 21 (WCAG 2.2, section "contrast ratio")."""
    darker, lighter = sorted([luminance(one), luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_is_computed_as_the_standard_does() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # the grey that just fails, by WebAIM


ON_GROUND = [(name, "--raised") for name in TOKENS if name.startswith("--code-")]
ON_GROUND += [
    *((text, ground) for text in ("--ink", "--quiet") for ground in ("--surface", "--raised")),
    *[("--on-error", "--error-soft"), ("--on-good", "--good-soft"), ("--on-error", "--surface")],
    *[("--on-difference", "--difference"), ("--accent", "--surface")],
]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), ON_GROUND)
def test_text_stands_out_from_its_ground(text: str, ground: str, theme: int) -> None:
    assert contrast(TOKENS[text][theme], TOKENS[ground][theme]) >= 4.5


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("ground", ["--surface", "--raised", "--difference"])
def test_line_below_a_difference_is_seen(ground: str, theme: int) -> None:
    assert contrast(TOKENS["--difference-line"][theme], TOKENS[ground][theme]) >= 3


def test_every_class_of_code_has_its_look() -> None:
    styled = {
        name for line in CONTENT.splitlines() if line.startswith("code ") for name in re.findall(r"\.(\w+)", line)
    }
    assert {name for name in styled if len(name) <= 2} == CLASSES
