"""How does a small model write readably at temperature 1? `python -m demo.sharpen MODEL --temperature T --out FOLDER`.

A model of 2.8 million parameters is unsure at every word, and one odd draw spoils a story. Sampled at a temperature
below 1 it reads well; but the loop samples, measures KL and improves at temperature 1. So the temperature goes into
the weights: the last norm is divided by it, which divides all logits, and nothing else changes.
"""

from pathlib import Path

import click
import torch
from transformers import LlamaForCausalLM

from worker.learning.models import load_language_model, load_tokenizer, save_model


@torch.no_grad()
def sharpen(model: LlamaForCausalLM, temperature: float) -> None:
    """Makes the model's distribution at temperature 1 the one it had at `temperature`, in place."""
    model.model.norm.weight.div_(temperature)


@click.command()
@click.argument("model", type=click.Path(exists=True, file_okay=False))
@click.option("--temperature", type=click.FloatRange(min=0, min_open=True), required=True, help="1 changes nothing.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Replaced if it exists.")
def main(model: str, temperature: float, out: Path) -> None:
    """Write MODEL, a folder with a Llama, sharpened by a temperature, in bf16."""
    try:
        language_model = load_language_model(model, torch.device("cpu"))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    if not isinstance(language_model, LlamaForCausalLM):
        raise click.ClickException(f"{model} holds a {type(language_model).__name__}, not a Llama")
    sharpen(language_model, temperature)
    save_model(language_model, load_tokenizer(model), out, torch.bfloat16)


if __name__ == "__main__":
    main()
