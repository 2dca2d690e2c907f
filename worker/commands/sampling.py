"""What does a policy answer to the prompts of a file, without our server? `prefloop sample`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from worker.commands.terminal import FILE, clear_errors, console, option, progress_bar
from worker.learning.completions import server_sampler
from worker.learning.json_lines import written_lines
from worker.learning.models import check_source, encode_prompt, load_language_model, load_tokenizer, pick_device
from worker.learning.prompts import PromptLine, read_prompts
from worker.learning.records import Prompt, Sample
from worker.learning.sampling import Sampler, SamplingSettings, check_room, policy_sampler

OF_OTHER_RESPONSES = frozenset(
    {
        *("response", "completion", "completions", "chosen", "rejected", "preferred_output", "non_preferred_output"),
        *("ranking", "groups", "strength", "levels", "ties", "scores", "deviations", "outputs"),
        *("given_scores", "given_deviations", "given_outputs"),
        *("criteria", "answers", "shown", "shown_order", "implied", "corrections"),
    }
)
"""Keys of a line that would speak of the new responses as if they had been judged."""


@click.command(
    params=[
        click.Option(["--policy"], help="Language model: a folder, or a Hugging Face name."),
        click.Option(["--prompts"], required=True, type=FILE, help="Prompts: JSON Lines, plain or gzipped."),
        click.Option(["--n"], type=click.IntRange(1), default=1, show_default=True, help="Responses to each prompt."),
        click.Option(["--out"], required=True, type=click.Path(dir_okay=False, path_type=Path), help="File to write."),
        click.Option(["--server"], metavar="URL", help="In place of --policy: a server that speaks OpenAI's protocol."),
        click.Option(["--model"], metavar="NAME", help="What the server calls the model."),
        click.Option(["--extra"], metavar="JSON", help="More fields of every request to the server, as an object."),
        option("--temperature", SamplingSettings.temperature, "Divides the logits; 0 takes the likeliest token."),
        option("--top-p", SamplingSettings.top_p, "Draw only from the likeliest tokens that reach this probability."),
        option("--max-new-tokens", SamplingSettings.max_new_tokens, "Longer responses are cut."),
        option("--seed", 1, "Of all that is drawn."),
        option("--device", "auto", "auto, cpu, cuda or cuda:1."),
        option("--precision", "auto", "auto is bf16 where the hardware has it.", ["auto", "fp32", "bf16"]),
        option("--engine", "auto", "auto is continuous on CUDA, else loop.", ["auto", "loop", "continuous"]),
    ],
    epilog="""\b
Examples:
  prefloop sample --policy models/chat --prompts prompts.jsonl --n 4 --out responses.jsonl
  prefloop sample --server http://localhost:8000 --model Qwen/Qwen3-0.6B --prompts prompts.jsonl --out responses.jsonl
""",
)
def sample(
    policy: str | None,
    prompts: Path,
    n: int,
    out: Path,
    server: str | None,
    model: str | None,
    extra: str | None,
    device: str,
    seed: int,
    **options: Any,
) -> None:
    """Have a policy answer the prompts of a file.

    Every line of the file is written again with `responses`, `finish_reasons` and `seeds`, which `prefloop reward
    score` reads. A key for the server stands in the environment, in OPENAI_API_KEY. Nothing is written before all
    is there.
    """
    with clear_errors(stopped="nothing was written"):
        settings = SamplingSettings(**options)
        if (policy is None) == (server is None):
            raise ValueError("name what is to answer: either --policy or --server")
        if server is not None:
            sampler, lines = _of_server(server, model, extra, settings), read_prompts(prompts)
        elif model is not None or extra is not None:
            raise ValueError("--model and --extra are for a --server; a policy is named by --policy alone")
        else:
            sampler, lines = _of_policy(str(policy), device, settings, prompts)
        with written_lines(out) as write:
            with progress_bar() as report:
                samples = sampler([line.messages for line in lines], n, seed, report)
            for line, own in zip(lines, samples, strict=True):
                write(_answered(line, own))
        cut = sum(one.finish_reason == "cut" for own in samples for one in own)
        console.print(
            f"[bold]{out}[/bold]: {len(lines) * n:,} responses to {len(lines):,} prompts, {cut:,} of them cut"
        )


def _of_server(server: str, model: str | None, extra: str | None, settings: SamplingSettings) -> Sampler:
    if model is None:
        raise ValueError("name the --model as the server calls it")
    try:
        fields = json.loads(extra or "{}")
    except json.JSONDecodeError as error:
        raise ValueError(f"--extra is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError('--extra must be an object, such as {"top_k": 20}')  # noqa: TRY004
    return server_sampler(server, model, settings, extra=fields)


def _of_policy(policy: str, device: str, settings: SamplingSettings, prompts: Path) -> tuple[Sampler, list[PromptLine]]:
    """A sampler, and the prompts once all are known to fit."""
    check_source(policy)
    tokenizer, where = load_tokenizer(policy), pick_device(device)
    model = load_language_model(policy, where)

    def fits(prompt: Prompt) -> None:
        check_room(model, encode_prompt(tokenizer, prompt), settings)

    lines = read_prompts(prompts, fits)
    return policy_sampler(model, tokenizer, settings), lines


def _answered(line: PromptLine, samples: Sequence[Sample]) -> dict[str, Any]:
    """The line with its new responses, without what it says of others."""
    kept = {key: value for key, value in line.row.items() if key not in OF_OTHER_RESPONSES}
    return kept | {
        "responses": [one.text for one in samples],
        "finish_reasons": [one.finish_reason for one in samples],
        "seeds": [one.seed for one in samples],
    }
