"""Which learning steps run from files alone? `prefloop pretrain`, `sft`, `sample`, `reward` and `ppo`."""

import click

from worker.commands.policy import ppo
from worker.commands.reward import reward
from worker.commands.sampling import sample
from worker.commands.training import pretrain, sft

__all__ = ["learning_commands", "ppo", "pretrain", "reward", "sample", "sft"]

learning_commands: list[click.Command] = [pretrain, sft, sample, reward, ppo]
