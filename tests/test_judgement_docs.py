"""Does docs/judgements.md say what a judgement form may hold?"""

import ast
import re
from pathlib import Path

from app.domain.judgement import Criterion, Flag, JudgementForm, PairAsked, RankingAsked, ScoreAsked, parse_form
from app.web.guidelines import render_guidelines

TEXT = (Path(__file__).parent.parent / "docs" / "judgements.md").read_text()


def test_every_field_of_the_form_is_documented() -> None:
    table = TEXT[TEXT.index("| field |") :]
    for part in (JudgementForm, RankingAsked, PairAsked, ScoreAsked, Criterion, Flag):
        for field in part.model_fields:
            assert re.search(rf"[`.]{field}`|`{field}\.", table), f"{part.__name__}.{field}"
    scales = set(re.findall(r"^\| `(\w+)` \| \d", TEXT, re.MULTILINE))
    assert all(PairAsked(scale=scale) for scale in scales)
    assert scales == {"better", "llama2", "anthropic"}


def test_the_example_of_a_form_works() -> None:
    example = re.search(r"^( *)\"judgement_form\": (\{.*?^\1\})", TEXT, re.DOTALL | re.MULTILINE)
    assert example
    assert parse_form(ast.literal_eval(example[2])).criteria[0].key == "honest"


def test_the_example_of_guidelines_is_a_card() -> None:
    example = re.search(r"    (```example.*?    ```)", TEXT, re.DOTALL)
    assert example
    assert 'class="example"' in render_guidelines(example[1].replace("\n    ", "\n"))
