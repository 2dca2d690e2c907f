"""What do random models talk in? Words w0, w1, ... of a vocabulary that needs no corpus."""

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast as FastTokenizer

WORDS = 4_000
PAD, END, UNKNOWN = "<pad>", "<eos>", "<unk>"


def word_tokenizer() -> FastTokenizer:
    """A token a word, in front of them those to pad (0), to end (1) and for what is no word (2)."""
    names = [PAD, END, UNKNOWN, *(f"w{word}" for word in range(WORDS))]
    inner = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return FastTokenizer(tokenizer_object=inner, pad_token=PAD, eos_token=END, unk_token=UNKNOWN)
