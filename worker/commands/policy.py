"""How good does a policy get under a reward, without a server? `prefloop ppo run`."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import click
import torch
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from worker.commands.outputs import checkpoints_beside, reserved
from worker.commands.record import FACTS, RunRecord
from worker.commands.settings import read_settings
from worker.commands.terminal import FILE, FOLDER, clear_errors, console, option, progress_bar
from worker.learning.models import check_source, encode_prompt, load_language_model, load_tokenizer
from worker.learning.policy.course import first_numbers
from worker.learning.policy.critic import check_same_vocabulary
from worker.learning.policy.devices import is_first, joined
from worker.learning.policy.judges import reward_function
from worker.learning.policy.settings import PPOSettings
from worker.learning.ppo import ImprovedPolicy, improve_policy
from worker.learning.prompts import read_prompts
from worker.learning.records import Prompt
from worker.learning.reward.model import RewardModel, load_reward_model

SHOWN = {"objective/scores": "score", "objective/kl": "KL", "episodes_per_second": "episodes/s"}
ENDS = {
    "done": "after all rollouts",
    "kl_budget": "when KL left its budget, with the last policy within",
    "watched": "when a watched reward fell, with the policy that it liked best",
}


@click.group()
def ppo() -> None:
    """Improve a policy under a reward model, from files: PPO, RLOO or GRPO.

    docs/ppo.md says what can be set, and how to read what comes out.
    """


@ppo.command(
    params=[
        click.Option(["--policy"], required=True, help="Where to start: a folder, or a Hugging Face name."),
        click.Option(
            ["--reward", "rewards"],
            required=True,
            multiple=True,
            type=FOLDER,
            help="Folder that `prefloop reward fit` wrote; several are an ensemble.",
        ),
        click.Option(["--prompts"], required=True, type=FILE, help="Prompts: JSON Lines, plain or gzipped."),
        click.Option(["--out"], required=True, type=FOLDER, help="Folder for the policy; an earlier one is replaced."),
        click.Option(["--settings"], type=FILE, help="How to learn: a JSON object, or TOML, of settings by name."),
        click.Option(
            ["--set", "-s", "changes"], multiple=True, metavar="NAME=VALUE", help="One setting, over the file's."
        ),
        click.Option(["--reference"], help="What KL is measured against, in place of the policy as it starts."),
        click.Option(
            ["--watch", "watched"],
            multiple=True,
            type=FOLDER,
            help="Reward model that nothing is learned from, to look on.",
        ),
        option("--seed", 1, "Of the samples, the order and new weights."),
        option("--device", "auto", "auto, cpu, cuda or cuda:1."),
    ],
    epilog="""\b
Examples:
  prefloop ppo run --policy models/chat --reward models/reward --prompts prompts.jsonl --out models/better
  prefloop ppo run --policy Qwen/Qwen3-0.6B --reward models/reward --prompts prompts.jsonl --out models/better
      -s lora_rank=16 -s sampling.max_new_tokens=256
  torchrun --nproc-per-node 2 --no-python prefloop ppo run --policy models/chat --reward models/reward
      --prompts prompts.jsonl --out models/better
""",
)
def run(
    policy: str,
    rewards: tuple[Path, ...],
    prompts: Path,
    out: Path,
    settings: Path | None,
    changes: tuple[str, ...],
    reference: str | None,
    watched: tuple[Path, ...],
    seed: int,
    device: str,
) -> None:
    """Let a policy learn what a reward model prefers, and stay near what it was.

    Stop it at any time: the same command goes on from its last checkpoint. Until the policy is written, checkpoints,
    metrics and samples stand beside OUT in OUT.checkpoints.
    """
    stopped = f"the same command goes on from its last checkpoint, if there is one yet in {out}.checkpoints"
    with clear_errors(stopped), joined(device) as where, _reserved(out) as checkpoints:
        console.quiet = not is_first()
        chosen = read_settings(PPOSettings, settings, changes)
        _check_begins(out, [policy, reference, *rewards, *watched])
        _check_watched(watched, chosen)
        for source in filter(None, [policy, reference]):
            check_source(source)
        tokenizer = load_tokenizer(policy)
        asked = [line.messages for line in read_prompts(prompts, _fits(policy, tokenizer, chosen))]
        judges, onlookers = ({folder: load_reward_model(folder, where) for folder in own} for own in (rewards, watched))
        facts = {
            "policy": policy,
            "reference": reference,
            "rewards": _told(judges),
            "watched": _told(onlookers),
            "prompts": {"file": str(prompts), "count": len(asked), "sha256": _hash(asked)},
            "seed": seed,
        }
        record = RunRecord(checkpoints, facts, chosen)
        models = list(judges.values())
        with progress_bar(SHOWN) as bar:
            improved = improve_policy(
                load_language_model(policy, where),
                _reference(policy, reference, chosen, where),
                tokenizer,
                reward_function(models, chosen.conservatism, chosen.conservatism_coefficient, seed),
                asked,
                chosen,
                seed,
                record.reporting(bar),
                critic=_critic(models[0], tokenizer, chosen),
                watched={folder.name: onlooker for folder, onlooker in onlookers.items()},
                checkpoints=checkpoints,
                keep=record.keep,
            )
        if is_first():
            record.finish(out, improved, tokenizer)
            _tell(out, improved)


def _reserved(out: Path) -> AbstractContextManager[Path]:
    """For the one process that writes there; the others only look at its checkpoints."""
    return reserved(out, FACTS, "a policy of a run") if is_first() else nullcontext(checkpoints_beside(out))


def _check_begins(out: Path, sources: Sequence[str | Path | None]) -> None:
    """The folder is replaced as a whole, so it must be nothing that the run begins with."""
    if any(source is not None and Path(source).resolve() == out.resolve() for source in sources):
        raise ValueError(f"{out} is what the run begins with, and would be replaced: name another folder with --out")


def _check_watched(watched: Sequence[Path], settings: PPOSettings) -> None:
    if len({folder.name for folder in watched}) < len(watched):
        raise ValueError("two reward models that look on have the same name: rename one of the folders")
    if settings.watch_patience is not None and not watched:
        raise ValueError("the setting watch_patience asks a reward model that looks on: name it with --watch")


def _fits(policy: str, tokenizer: PreTrainedTokenizerBase, settings: PPOSettings) -> Callable[[Prompt], None]:
    """A check that a prompt leaves room for a response, before anything is learned."""
    room = getattr(AutoConfig.from_pretrained(policy).get_text_config(), "max_position_embeddings", None)
    new = settings.sampling.max_new_tokens

    def check(prompt: Prompt) -> None:
        tokens = len(encode_prompt(tokenizer, prompt))
        if not tokens:
            raise ValueError("the prompt has no token")
        if room is not None and tokens + new > room:
            raise ValueError(
                f"the prompt's {tokens} tokens and {new} new ones exceed the policy's {room} positions: leave it out,"
                " or lower sampling.max_new_tokens"
            )

    return check


def _reference(
    policy: str, reference: str | None, settings: PPOSettings, device: torch.device
) -> PreTrainedModel | None:
    """The model that KL is measured against; None where that is the policy without its adapters."""
    if reference is None and settings.lora_rank is not None:
        return None
    return load_language_model(reference or policy, device)


def _critic(judge: RewardModel, tokenizer: PreTrainedTokenizerBase, settings: PPOSettings) -> PreTrainedModel | None:
    """What a value function of its own starts from; None where there is none."""
    if not settings.has_critic or settings.critic == "shared":
        return None
    check_same_vocabulary(tokenizer, judge.tokenizer)
    return judge.model


def _told(judges: Mapping[Path, RewardModel]) -> list[dict[str, str]]:
    """Where reward models are, and what tells each from another that may stand there later."""
    return [{"folder": str(folder), "weights": first_numbers(judge.model)} for folder, judge in judges.items()]


def _hash(prompts: Sequence[Prompt]) -> str:
    return hashlib.sha256(json.dumps([list(prompt) for prompt in prompts]).encode()).hexdigest()


def _tell(out: Path, improved: ImprovedPolicy) -> None:
    rows = improved.metrics
    console.print(f"[bold]{out}[/bold]: {len(rows):,} rollouts; it ended {ENDS[improved.ended]}")
    for name, label in (("objective/scores", "score"), ("objective/kl", "KL in nats a sequence")):
        console.print(f"{label} {rows[0][name]:z.3f} in the first rollout, {rows[-1][name]:z.3f} in the last")
