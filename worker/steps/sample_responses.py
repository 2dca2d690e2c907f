"""What does the current policy answer? Fresh responses, and the comparisons that people will label."""

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from app.database import transaction
from app.domain import rounds, runs, samples
from app.language import mark
from app.tables import ResponsePurpose
from worker.attempt import Attempt
from worker.learning.progress import Report
from worker.learning.records import Prompt, Sample
from worker.learning.sampling import SamplingSettings, sample_responses
from worker.learning.seeds import derive_seed
from worker.steps.inputs import as_messages, as_new_sample, load_policy, read_round

_DRAWS = 3
"""Times that a prompt is sampled until it has enough distinct responses."""


def sample_current_policy(attempt: Attempt) -> None:
    """The round's policy answers prompts; their distinct responses become comparisons."""
    with transaction() as session:
        inputs = read_round(session, attempt)
        round_, settings = inputs.round, inputs.settings
        draws = samples.draw_prompts(
            session,
            round_.project_id,
            settings.loop.prompts_per_round,
            derive_seed(round_.seed, "prompts"),
            mixed_share=settings.loop.mixed_share,
        )
    model, tokenizer = load_policy(inputs.policy, attempt.device)
    written = distinct_samples(
        model,
        tokenizer,
        [as_messages(draw.prompt.messages) for draw in draws],
        settings.responses_per_prompt,
        inputs.sampling,
        derive_seed(round_.seed, "sample"),
        attempt.named(mark("the policy writes")),
    )
    attempt.flush()
    fresh = [as_new_sample(draw.prompt, sample) for draw, own in zip(draws, written, strict=True) for sample in own]
    with transaction() as session:
        round_, run = runs.lock_attempt(session, attempt.run_id, attempt.number)
        responses = samples.store_samples(
            session,
            run,
            inputs.policy,
            fresh,
            purpose=ResponsePurpose.LABELLING,
            sampling=settings.sampling.model_dump(),
        )
        opened = samples.open_comparisons(
            session,
            round_,
            draws,
            responses,
            k=settings.k,
            mixed_share=settings.loop.mixed_share,
            seed=derive_seed(round_.seed, "mix"),
        )
        runs.note(run, f"{len(responses)} responses to {len(draws)} prompts, {len(opened)} comparisons")
        rounds.finish_step(session, run.id, attempt.number)


def distinct_samples(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    n: int,
    settings: SamplingSettings,
    seed: int,
    report: Report,
) -> list[list[Sample]]:
    """Up to `n` responses to each prompt that differ in their text and are not blank.

    What repeats an earlier one is drawn again, a few times, and then left out.
    """
    kept: list[dict[str, Sample]] = [{} for _ in prompts]
    for draw in range(_DRAWS):
        short = [index for index, own in enumerate(kept) if len(own) < n]
        if not short:
            break
        missing = max(n - len(kept[index]) for index in short)
        drawn = sample_responses(
            model, tokenizer, [prompts[index] for index in short], missing, settings, derive_seed(seed, draw), report
        )
        for index, own in zip(short, drawn, strict=True):
            for sample in own:
                if sample.text.strip() and len(kept[index]) < n:
                    kept[index].setdefault(sample.text, sample)
    return [list(own.values()) for own in kept]
