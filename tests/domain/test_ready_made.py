"""Does every ready-made judgement form work, and ask what its name says?"""

import pytest

from app.domain.judgement import JudgementForm, parse_form
from app.domain.ready_made import PLAIN, READY_MADE, ReadyMade, ready_made


@pytest.mark.parametrize("begun", READY_MADE, ids=lambda begun: begun.key)
def test_it_is_a_form(begun: ReadyMade) -> None:
    assert parse_form(begun.form.model_dump(mode="json")) == begun.form
    assert ready_made(begun.key) is begun


def test_keys_are_told_apart_and_the_plain_one_is_what_is_asked_by_default() -> None:
    assert len({begun.key for begun in READY_MADE}) == len(READY_MADE)
    assert ready_made(PLAIN).form == JudgementForm()
    assert ready_made("none such") is None


def test_scores_need_no_second_response_and_orders_do() -> None:
    fewest = {begun.key: begun.form.fewest_responses for begun in READY_MADE}
    assert fewest == {"ranking": 2, "llama2": 2, "hhh": 2, "helpsteer": 1, "score": 1, "correction": 2}
