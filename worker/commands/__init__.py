"""Which learning steps run from files alone, without a server? `prefloop pretrain`, `sft`, `reward` and `ppo`."""

import click

from worker.commands.policy import ppo
from worker.commands.reward import reward
from worker.commands.training import pretrain, sft

__all__ = ["learning_commands", "ppo", "pretrain", "reward", "sft"]

learning_commands: list[click.Command] = [pretrain, sft, reward, ppo]
