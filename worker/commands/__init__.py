"""Which learning steps run from files alone, without a server? `prefloop pretrain`, `sft` and `reward`."""

import click

from worker.commands.reward import reward
from worker.commands.training import pretrain, sft

__all__ = ["learning_commands", "pretrain", "reward", "sft"]

learning_commands: list[click.Command] = [pretrain, sft, reward]
