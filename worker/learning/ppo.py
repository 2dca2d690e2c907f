"""How does a policy get better under a reward? Proximal policy optimisation for language models.

The papers: Schulman et al. 2017 (PPO), Schulman et al. 2016 (GAE), Ziegler et al. 2019 (RLHF with
an adaptive KL penalty). Kept from Ziegler's code, lm-human-preferences: the per-token KL penalty
inside the reward, the score on the end token, whitening with the biased variance, the clipped
value loss, the zero-initialised value head on the policy's trunk, Adam's epsilon of 1e-5.
Changed: log-probabilities all come from the training forward; advantages are whitened over
the whole rollout; the loss is normalised over the tokens of the optimiser step; gradients are
clipped; PyTorch's Adam; lambda is 1 unless set; and the KL target counts from where the policy
starts, so that a second round does not undo the first.

RLOO and GRPO are the same loop with another estimator of advantages (`policy/estimators.py`) and
no value function. What they change: ratios are clipped token by token, and the mean is over the
tokens of a step, where GRPO takes it response by response.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from worker.learning.batches import prediction_budget
from worker.learning.likelihood import micro_batches
from worker.learning.models import computes_in_bf16, encode_prompt
from worker.learning.pace import Pace, weights_of
from worker.learning.policy.actor import Actor, new_actor
from worker.learning.policy.course import Checkpoints, PPOCourse, fingerprint_of
from worker.learning.policy.devices import gathered, process_count, shared_out, sum_gradients
from worker.learning.policy.estimators import Estimate, estimate
from worker.learning.policy.guards import Ended
from worker.learning.policy.kl import leaves_rollout, next_kl_coefficient, reference_kl
from worker.learning.policy.metrics import check_first_ratio, rollout_metrics, step_metrics, steps_metrics
from worker.learning.policy.rewards import length_prices, token_rewards
from worker.learning.policy.rollouts import Asked, Judges, RewardFunction, Rollout, answer, asked_prompts, collect
from worker.learning.policy.settings import PPOSettings
from worker.learning.progress import Progress, Report, silent
from worker.learning.records import Prompt
from worker.learning.sampling import check_room
from worker.learning.seeds import derive_seed, generator_for

Metrics = dict[str, float]


@dataclass(frozen=True)
class PPORun:
    """All that stays as it is while PPO runs."""

    actor: Actor
    tokenizer: PreTrainedTokenizerBase
    judges: Judges
    prompts: Sequence[Asked]
    settings: PPOSettings
    seed: int


@dataclass(frozen=True)
class ImprovedPolicy:
    """The policy after PPO, a row of metrics for each rollout, and why there were no more."""

    policy: PreTrainedModel
    metrics: list[Metrics]
    ended: Ended


def improve_policy(
    policy: PreTrainedModel,
    reference: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase,
    reward: RewardFunction,
    prompts: Sequence[Prompt],
    settings: PPOSettings,
    seed: int,
    report: Report = silent,
    *,
    critic: PreTrainedModel | None = None,
    watched: Mapping[str, RewardFunction] | None = None,
    checkpoints: Path | None = None,
    keep: Callable[[Rollout, int], None] | None = None,
) -> ImprovedPolicy:
    """Trains `policy`, in place, to score higher under `reward` and to stay near `reference`.

    Args:
        policy: where to start; it may differ from the reference.
        reference: what KL is measured against, version 0 as a rule; another object than `policy`. With adapters None
            says: the policy as it starts.
        prompts: the train prompts; each pass over them is shuffled anew.
        report: called after every rollout; may raise to abort.
        critic: the reward model's classifier, where a separate value function is to start from it.
        watched: rewards that only look on, by name; `watch_patience` lets them end the run.
        checkpoints: a folder; the newest state there is continued, to the same bits.
        keep: called with every rollout and its number.

    Raises:
        ValueError: if these do not fit together, or the checkpoints belong to another run.
    """
    if not prompts:
        raise ValueError("there are no prompts to answer: give at least one")
    asked = [Asked(prompt, encode_prompt(tokenizer, prompt)) for prompt in prompts]
    for prompt in asked:
        check_room(policy, prompt.ids, settings.sampling)
    if settings.watch_patience is not None and not watched:
        raise ValueError("watch_patience needs a watched reward: name one, or leave watch_patience out")
    if settings.batch_episodes < process_count():
        raise ValueError(f"batch_episodes must be at least the {process_count()} processes that share them")
    actor = new_actor(policy, reference, critic, settings, seed)
    run = PPORun(actor, tokenizer, Judges(reward, watched or {}), asked, settings, seed)
    models = {"actor": actor, "reference": reference}
    fingerprint = fingerprint_of(settings, seed, prompts, models)
    course = new_course(run)
    stored = Checkpoints(checkpoints, actor.trained(), fingerprint, settings.checkpoint_seconds)
    stored.resume(course)
    ended = learn_from_rollouts(run, course, stored, report, keep)
    course.guards.go_back(ended, actor.trained())
    return ImprovedPolicy(actor.merge(), course.history, ended)


def learn_from_rollouts(
    run: PPORun, course: PPOCourse, stored: Checkpoints, report: Report, keep: Callable[[Rollout, int], None] | None
) -> Ended:
    """Samples, scores and learns, rollout after rollout; says why there are no more."""
    settings = run.settings
    pace = Pace(
        weights_of(run.actor.language_model),
        run.actor.language_model.device,
        settings.precision,
        episodes=settings.batch_episodes,
        total=settings.rollouts,
        done=course.step,
        devices=process_count(),
    )
    if course.history:  # a run that goes on says where it stands
        report(Progress("improve_policy", course.step, settings.rollouts, course.history[-1]))
    while course.step < settings.rollouts or settings.is_guarded:
        pace.begin()
        rollout = next_rollout(run, course.step, stored, pace)
        if keep is not None:
            keep(rollout, course.step)
        if ended := course.guards.judge(rollout, run.actor.trained(), settings):
            return ended
        if course.step == settings.rollouts:  # the last policy was looked at by its guards, and may stay
            break
        course.history.append(learn_from(run, course, rollout, pace))
        course.step += 1
        stored.save(course, is_last=course.step == settings.rollouts)
        report(Progress("improve_policy", course.step, settings.rollouts, course.history[-1]))
    return "done"


def next_rollout(run: PPORun, step: int, stored: Checkpoints, pace: Pace) -> Rollout:
    """Rollout `step`: sampled and scored, unless a run that was killed had come that far, and then looked at."""
    settings = run.settings
    asked = asked_prompts(run.prompts, settings, run.seed, step)
    answers = stored.kept(step)
    if answers is None:
        seed = derive_seed(run.seed, "rollout", step)
        answers = answer(run.actor, run.tokenizer, run.judges, asked, settings, seed, pace)
        stored.keep(answers, step)
    return collect(run.actor, asked, answers, settings, pace)


def learn_from(run: PPORun, course: PPOCourse, rollout: Rollout, pace: Pace) -> Metrics:
    """One turn: what each token was worth, how much better than expected, and the steps that follow from it."""
    settings = run.settings
    if course.length_target is None:
        course.length_target = float(rollout.mask.sum(dim=1).float().mean())
    rewards = token_rewards(rollout, course.kl_coefficient, course.length_target, settings)
    estimated = estimate(rollout, rewards, settings)
    row = rollout_metrics(rollout, rewards, estimated.returns if settings.has_critic else None)
    row["objective/kl_coef"] = course.kl_coefficient
    row["objective/length_price"] = float(length_prices(rollout, course.length_target, settings.length_penalty).mean())
    row |= learn(run, course, rollout, estimated)
    if course.step >= settings.value_warmup:  # until then the policy stands still, and so must the price of leaving
        adapt_kl_coefficient(course, rollout, settings)
    epochs = row["policy/steps"] / settings.minibatches
    tokens, written = epochs * sum(map(len, rollout.dialogues)), epochs * float(rollout.mask.sum())
    pace.lap("learn", round(tokens), passes=3 if settings.lora_rank is None else 2, predicted=round(written))
    return row | pace.metrics()


def adapt_kl_coefficient(course: PPOCourse, rollout: Rollout, settings: PPOSettings) -> None:
    """Moves beta so that KL approaches the start's plus `kl_target`."""
    if settings.kl_horizon is not None and course.guards.kl_start is not None:
        target = course.guards.kl_start + settings.kl_target
        course.kl_coefficient = next_kl_coefficient(
            course.kl_coefficient, rollout.kl, target, len(rollout.samples), settings.kl_horizon
        )


def new_course(run: PPORun) -> PPOCourse:
    """The state before the first rollout; the value function's own weights may have a learning rate of their own."""
    settings, actor = run.settings, run.actor
    rates = {"policy": settings.learning_rate, "value": settings.critic_learning_rate or settings.learning_rate}
    groups = {"policy": actor.policy_parameters(), "value": actor.value_parameters()}
    optimiser = torch.optim.AdamW(
        [{"params": group, "lr": rates[name], "highest": rates[name]} for name, group in groups.items() if group],
        eps=settings.adam_epsilon,
        weight_decay=0.0,
        fused=True,
    )
    return PPOCourse(optimiser, settings.kl_coefficient, settings.length_target)


def learn(run: PPORun, course: PPOCourse, rollout: Rollout, estimated: Estimate) -> Metrics:
    """Makes epochs x minibatches steps on one rollout, fewer where the policy leaves it; metrics of these steps."""
    settings = run.settings
    for group in course.optimiser.param_groups:
        group["lr"] = group["highest"] * (1 - course.step / settings.rollouts)
    rows: list[Metrics] = []
    for episodes in minibatches(run, course.step):
        row = accumulate_gradients(run, course, rollout, estimated, episodes)
        rows.append(row)
        if leaves_rollout(row["policy/approxkl"], settings):
            course.optimiser.zero_grad()
            break
        row["grad_norm"] = step_along_gradients(run, course)
    found = steps_metrics(rows)
    is_bf16 = computes_in_bf16(rollout.mask.device, settings.precision)
    check_first_ratio(found["policy/ratio_error"], found["policy/ratio_error_mean"], is_bf16=is_bf16)
    return found | {"learning_rate": course.optimiser.param_groups[0]["lr"]}


def step_along_gradients(run: PPORun, course: PPOCourse) -> float:
    """One optimiser step; gives the norm that the gradients had before they were clipped.

    Raises:
        RuntimeError: if that is no number; the weights are then still those of the step before.
    """
    policy, values = run.actor.policy_parameters(), run.actor.value_parameters()
    if course.step < run.settings.value_warmup:
        for parameter in policy:
            parameter.grad = None  # the optimiser passes over it
        policy = []
    sum_gradients([*policy, *values])
    norm = float(nn.utils.clip_grad_norm_([*policy, *values], run.settings.max_grad_norm))
    if not math.isfinite(norm):
        raise RuntimeError(
            f"the gradients overflow in rollout {course.step}: the policy has come apart, or scores are huge. Lower"
            " learning_rate, or set score_clip"
        )
    course.optimiser.step()
    course.optimiser.zero_grad()
    return norm


def minibatches(run: PPORun, step: int) -> Iterator[list[int]]:
    """The episodes of each optimiser step on rollout `step`: every pass is shuffled anew."""
    settings = run.settings
    for epoch in range(settings.epochs):
        generator = generator_for(run.seed, "minibatches", step, epoch)
        order = torch.randperm(settings.batch_episodes, generator=generator)
        for episodes in order.tensor_split(settings.minibatches):
            yield episodes.tolist()


def accumulate_gradients(
    run: PPORun, course: PPOCourse, rollout: Rollout, estimated: Estimate, episodes: Sequence[int]
) -> Metrics:
    """The gradients of one optimiser step's loss, the mean over all tokens of its episodes; metrics of the step.

    Micro-batches only bound memory: each adds its sum over tokens divided by the step's count.
    """
    tokens = int(rollout.mask[list(episodes)].sum())
    mine = shared_out(sorted(episodes, key=lambda episode: len(rollout.dialogues[episode])))
    dialogues = [rollout.dialogues[episode] for episode in mine]
    budget = run.settings.micro_batch_tokens or prediction_budget(rollout.mask.device)
    seen: list[dict[str, Tensor]] = []
    for group in micro_batches(run.actor.language_model, dialogues, budget):
        loss, found = losses_of(run, course, rollout, estimated, [mine[index] for index in group])
        (loss / tokens).backward()  # type: ignore[no-untyped-call]
        seen.append({name: values.cpu() for name, values in found.items()})
    seen = gathered(seen)
    return step_metrics({name: torch.cat([part[name] for part in seen]) for name in seen[0]})


def losses_of(
    run: PPORun, course: PPOCourse, rollout: Rollout, estimated: Estimate, rows: Sequence[int]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss summed over the tokens of some episodes, and what is to be known of each of these tokens."""
    settings = run.settings
    new = run.actor([rollout.dialogues[row] for row in rows], settings.sampling.temperature, settings.precision)

    def known(table: Tensor) -> Tensor:  # [tokens of these episodes]
        return table[list(rows), : new.mask.shape[1]][new.mask]

    logprobs, old_logprobs = new.logprobs[new.mask], known(rollout.outputs.logprobs)
    advantages = known(estimated.advantages)
    policy_loss = clipped_policy_loss(logprobs, old_logprobs, advantages, settings.clip_range)
    loss = policy_loss.sum()
    log_ratio = (logprobs - old_logprobs).detach()
    found = {
        "log_ratio": log_ratio,
        "policy_loss": policy_loss.detach(),
        "policy_clipped": policy_loss.detach() > -advantages * log_ratio.clamp(-20, 20).exp(),
        "entropy": new.entropies[new.mask],
    }
    if settings.kl_in == "loss":
        loss = loss + course.kl_coefficient * reference_kl(logprobs, known(rollout.reference_logprobs)).sum()
    if settings.has_critic:
        values, returns = new.values[new.mask], known(estimated.returns)
        value_loss = clipped_value_loss(values, known(rollout.outputs.values), returns, settings.value_clip_range)
        loss = loss + settings.value_coefficient * value_loss.sum()
        found["value_loss"] = value_loss.detach()
        found["value_clipped"] = value_loss.detach() > 0.5 * (values.detach() - returns).square()
    return loss, found


def clipped_policy_loss(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """max(-A rho, -A clip(rho, 1 - c, 1 + c)) of each token, rho = pi / pi_old.

    Schulman et al. 2017, equation 7, negated. The log-ratio is held within +-20 against overflow.
    """
    ratio = (logprobs - old_logprobs).clamp(-20, 20).exp()
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip_range, 1 + clip_range))


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip_range: float) -> Tensor:
    """1/2 max((V - R)^2, (V_old + clip(V - V_old, -c, c) - R)^2) of each token.

    From lm-human-preferences (`train_policy.py`, `loss`).
    """
    clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return 0.5 * torch.maximum((values - returns).square(), (clipped - returns).square())
