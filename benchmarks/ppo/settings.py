"""What is chosen about the runs of ppo_quality.py? One place for all parts."""

from dataclasses import replace

from benchmarks.ppo.stories import SAMPLING
from worker.learning.policy.settings import PPOSettings
from worker.learning.reward.settings import RewardSettings

TOY = PPOSettings(
    episodes=2_560,
    batch_episodes=64,
    learning_rate=2e-4,
    critic_learning_rate=1e-2,
    value_warmup=2,
    value_clip_range=1.0,
    kl_coefficient=0.42,
    kl_target=6.0,
    kl_horizon=400,
    sampling=SAMPLING,
    precision="fp32",
)
"""Forty rollouts, where Ziegler et al. 2019 made 2,000. So the price of KL starts near what it comes to, and moves by
3 % at most from one to the next: the policy answers it more slowly as its learning rate falls, and quicker control
overshoots. The value function is given a start: its head learns faster, alone at first, and may move by as much as
scores deviate. A model this small is no faster in bf16."""

KL_PRICES = (0.1, 0.3)
"""At which both trainers run, since TRL's is fixed."""
PEER = replace(TOY, episodes=1_536, kl_horizon=None)

LABELS = 150
"""Pairs of answers to train openings."""
SHARPNESS = 1.0
"""A point of gold counts as much as the noise."""
REWARD = RewardSettings(epochs=2, learning_rate=1e-3, max_tokens=192, precision="fp32")
MEMBERS = 4
SINGLE = replace(TOY, episodes=1_920, kl_coefficient=0.01, kl_horizon=None, score_clip=None)
"""Nearly free to go anywhere."""
GUARDED = replace(SINGLE, conservatism="uncertainty", kl_budget=15.0, watch_patience=4)
"""The budget is two and a half times the usual target of 6 nats."""
