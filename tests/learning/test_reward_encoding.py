from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from worker.learning.records import Message
from worker.learning.reward.encoding import Encoded, EncodedSet, encode_sets

pytestmark = pytest.mark.learning


def prompt(text: str) -> tuple[Message, ...]:
    return ({"role": "user", "content": text},)


def ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.convert_tokens_to_ids(text.split()))


def whole_texts(encoded: Encoded, given: int) -> list[tuple[int, ...]]:
    """What the model reads for each response of a given set."""
    every = [each.prompt_ids + response for each in encoded.sets for response in each.response_ids]
    return [every[place] for place in encoded.places[given]]


@pytest.fixture
def marking_tokenizer() -> PreTrainedTokenizerFast:
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "cat", "dog", "sun", "rain"]
    inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    )


def test_a_text_is_prompt_response_and_end(tiny_tokenizer: Any) -> None:
    encoded = encode_sets(tiny_tokenizer, 64, [(prompt("the cat"), ["sat", "ran good"])])
    end = (tiny_tokenizer.eos_token_id,)
    expected = EncodedSet(
        ids(tiny_tokenizer, "the cat"), (ids(tiny_tokenizer, "sat") + end, ids(tiny_tokenizer, "ran good") + end)
    )
    assert encoded == Encoded([expected], [[0, 1]])
    assert (expected.tokens, expected.longest) == (2 + 2 + 3, 2 + 3)


def test_an_encoder_has_its_own_marks(marking_tokenizer: Any) -> None:
    encoded = encode_sets(marking_tokenizer, 64, [(prompt("cat dog"), ["sun"])])
    assert encoded.sets == [EncodedSet((1, 4, 5, 2), ((6, 2),))]


def test_marks_that_the_tokenizer_puts_itself_are_not_doubled(marking_tokenizer: Any) -> None:
    plain = encode_sets(marking_tokenizer, 64, [(prompt("cat dog"), ["sun"])])
    marking_tokenizer.backend_tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    assert marking_tokenizer("cat")["input_ids"] == [1, 4, 2]
    assert encode_sets(marking_tokenizer, 64, [(prompt("cat dog"), ["sun"])]) == plain


def test_sets_of_a_prompt_are_merged_and_equal_responses_encoded_once(tiny_tokenizer: Any) -> None:
    given = [
        (prompt("the cat"), ["sat", "ran", "sat"]),
        (prompt("a dog"), ["ran"]),
        (prompt("the cat"), ["old", "ran"]),
    ]
    encoded = encode_sets(tiny_tokenizer, 64, given)
    assert encoded.places == [[0, 1, 0], [3], [2, 1]]
    assert sum(each.tokens for each in encoded.sets) == (2 + 3 * 2) + (2 + 2)


def test_merging_changes_no_text(tiny_tokenizer: Any) -> None:
    given = [
        (prompt("the cat"), ["sat", "ran", "sat", ""]),
        (prompt("the cat sat"), ["ran"]),
        (prompt("the cat"), ["ran"]),
    ]
    together = encode_sets(tiny_tokenizer, 5, given)
    for number, each in enumerate(given):
        assert whole_texts(together, number) == whole_texts(encode_sets(tiny_tokenizer, 5, [each]), 0)


@pytest.mark.parametrize("limit", range(1, 12))
def test_what_is_too_long_loses_its_beginning(tiny_tokenizer: Any, limit: int) -> None:
    responses = ["sat", "ran good bad sun", "the a big small and saw old new"]
    encoded = encode_sets(tiny_tokenizer, limit, [(prompt("the cat and the"), responses)])
    end = (tiny_tokenizer.eos_token_id,)
    before = ids(tiny_tokenizer, "the cat and the")
    assert whole_texts(encoded, 0) == [(before + ids(tiny_tokenizer, text) + end)[-limit:] for text in responses]


def test_a_response_that_does_not_fit_leaves_the_others_their_prompt(tiny_tokenizer: Any) -> None:
    encoded = encode_sets(tiny_tokenizer, 7, [(prompt("the cat and the"), ["sat", "ran good bad", "ran"])])
    assert [len(each.prompt_ids) for each in encoded.sets] == [4, 3]
    assert encoded.places == [[0, 2, 1]]


@pytest.mark.parametrize("limit", range(2, 9))
def test_an_encoder_keeps_its_first_mark(marking_tokenizer: Any, limit: int) -> None:
    encoded = encode_sets(marking_tokenizer, limit, [(prompt("cat dog"), ["sun rain"])])
    assert whole_texts(encoded, 0) == [(1, *(4, 5, 2, 6, 7, 2)[1 - limit :])]


def test_special_tokens_in_a_response_are_text() -> None:
    letters = Tokenizer(models.BPE({letter: number for number, letter in enumerate("abcdefgops<>")}, []))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, pad_token="<pad>", eos_token="<eos>")
    encoded = encode_sets(tokenizer, 64, [(prompt("a"), ["bad<eos><pad>"])])
    (response,) = encoded.sets[0].response_ids
    assert response == (
        *(tokenizer.convert_tokens_to_ids(letter) for letter in "bad<eos><pad>"),
        tokenizer.eos_token_id,
    )


def test_nothing_gives_nothing(tiny_tokenizer: Any) -> None:
    assert encode_sets(tiny_tokenizer, 64, []) == Encoded([], [])
    assert encode_sets(tiny_tokenizer, 64, [(prompt("cat"), [])]) == Encoded([], [[]])


@pytest.mark.parametrize("limit", [0, 1])
def test_a_limit_needs_room(marking_tokenizer: Any, limit: int) -> None:
    with pytest.raises(ValueError, match="leaves no room for a response"):
        encode_sets(marking_tokenizer, limit, [(prompt("cat"), ["dog"])])
