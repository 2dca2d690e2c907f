"""How are a language model's weights learned from sequences, resumable to the bit?"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from worker.learning.course import put_weights, rate_at, resume_course, save_course
from worker.learning.likelihood import logits_from
from worker.learning.models import Precision, autocast
from worker.learning.packing import IGNORED, LearningSequence, PackedBatch, pack, packed_batch
from worker.learning.progress import Progress, Report, silent
from worker.learning.seeds import generator_for


@dataclass(frozen=True)
class TrainingSettings:
    """How the weights are learned."""

    epochs: int = 10
    """Passes over the training sequences, at most: the epoch with the lowest held-out loss is kept."""
    batch_tokens: int = 4_096
    """Tokens an optimiser step, the rest of each row included."""
    micro_batch_tokens: int = 2_048
    """The most tokens in one forward; lower it when memory runs out. It changes nothing else."""
    optimiser: Literal["adamw", "muon"] = "adamw"
    """Which of the two learns the matrices between the embeddings and the output."""
    learning_rate: float = 2e-3
    """At its highest; it climbs over the warm-up and falls linearly to 0."""
    warmup_share: float = 0.03
    """The share of all steps over which the learning rate climbs."""
    weight_decay: float = 0.1
    """Decay of matrices; norms and biases are left alone."""
    max_grad_norm: float = 1.0
    """Longer gradients are scaled down to this norm."""
    held_out_share: float = 0.02
    """The share of documents, or of groups of pairs, that is never trained on."""
    precision: Precision = "auto"
    """Of forward and backward passes; weights and loss stay in fp32."""
    checkpoint_seconds: float = 60.0
    """Time between two resumable checkpoints."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_tokens", "micro_batch_tokens", "learning_rate", "max_grad_norm"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        if not 0 <= self.held_out_share < 1:
            raise ValueError(f"held_out_share must be at least 0 and below 1, not {self.held_out_share}")


@dataclass(frozen=True)
class Training:
    """One training of `model`, in place. Rows have `columns` tokens."""

    phase: str
    model: PreTrainedModel
    sequences: Sequence[LearningSequence]
    held_out: Sequence[LearningSequence]
    columns: int
    settings: TrainingSettings
    seed: int

    def batches(self, epoch: int) -> list[list[list[LearningSequence]]]:
        """The epoch's optimiser steps, each a list of packed rows; every epoch has as many."""
        shuffled = torch.randperm(len(self.sequences), generator=generator_for(self.seed, "sequences", epoch)).tolist()
        rows = pack([len(self.sequences[index]) for index in shuffled], self.columns)
        order = torch.randperm(len(rows), generator=generator_for(self.seed, "rows", epoch)).tolist()
        packed = [[self.sequences[shuffled[item]] for item in rows[row]] for row in order]
        size = max(1, self.settings.batch_tokens // self.columns)
        return [packed[start : start + size] for start in range(0, len(packed), size)]

    def fingerprint(self) -> str:
        """What a checkpoint must agree with to be continued: settings, seed, data and the model's shape."""
        settings = {name: value for name, value in asdict(self.settings).items() if name != "checkpoint_seconds"}
        total = hashlib.sha256(json.dumps([self.phase, settings, self.seed, self.columns]).encode())
        for sequence in (*self.sequences, *self.held_out):
            total.update(json.dumps([sequence.learn_from, *sequence.ids]).encode())
        for name, parameter in self.model.named_parameters():
            total.update(f"{name} {list(parameter.shape)}".encode())
        return total.hexdigest()


def train(
    training: Training, report: Report = silent, checkpoints: Path | None = None
) -> tuple[list[dict[str, float]], int]:
    """Runs all epochs and leaves the best one's weights in the model.

    With a folder for `checkpoints` the newest state there is continued, to the same bits as if it
    had never stopped.

    Returns:
        A row of metrics for each epoch, and the epoch whose weights were kept.

    Raises:
        ValueError: if the checkpoints belong to another training.
    """
    settings = training.settings
    optimisers = new_optimisers(training.model, settings)
    weights, fingerprint = dict(training.model.named_parameters()), training.fingerprint()
    course = resume_course(checkpoints, weights, optimisers, fingerprint)
    steps = len(training.batches(0))
    total = settings.epochs * steps
    saved = time.monotonic()
    while course.step < total:
        epoch, at = divmod(course.step, steps)
        for batch in training.batches(epoch)[at:]:
            rate = settings.learning_rate * rate_at(course.step, total, settings.warmup_share)
            metrics = optimise(training, optimisers, batch, rate)
            course.step += 1
            course.losses.append(metrics["loss"])
            if course.step % steps == 0:
                measured = _measure(training)
                course.close_epoch(weights, measured, "held_out_loss")
                metrics |= measured
            if checkpoints and (course.step == total or time.monotonic() - saved >= settings.checkpoint_seconds):
                save_course(checkpoints, course, weights, optimisers, fingerprint)
                saved = time.monotonic()
            report(Progress(training.phase, course.step, total, metrics))
    put_weights(weights, course.best_weights)
    return course.history, course.best_epoch


def new_optimisers(model: PreTrainedModel, settings: TrainingSettings) -> list[torch.optim.Optimizer]:
    """AdamW (Loshchilov and Hutter 2019), or Muon (Jordan et al. 2024) for what it is made for.

    Muon orthogonalises the momentum of the matrices inside the blocks; scaled as in Liu et al.
    2025 ("Muon is scalable for LLM training", equation 4), it takes AdamW's learning rate and
    decay. Embeddings, norms and biases are AdamW's in both cases.
    """
    outer = {id(layer.weight) for layer in (model.get_input_embeddings(), model.get_output_embeddings())}
    matrices = [one for one in model.parameters() if one.dim() == 2 and id(one) not in outer]
    embeddings = [one for one in model.parameters() if one.dim() >= 2 and all(one is not other for other in matrices)]
    vectors = [one for one in model.parameters() if one.dim() < 2]
    rate, decay = settings.learning_rate, settings.weight_decay
    groups = [{"params": embeddings, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    if settings.optimiser == "adamw":
        groups[0]["params"] = [*embeddings, *matrices]
        return [torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True)]
    return [
        torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True),
        torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
    ]


def optimise(
    training: Training,
    optimisers: Sequence[torch.optim.Optimizer],
    rows: Sequence[Sequence[LearningSequence]],
    rate: float,
) -> dict[str, float]:
    """One optimiser step on the mean loss of all learned tokens of the rows, however they are split."""
    learned = sum(len(sequence) - sequence.learn_from for row in rows for sequence in row)
    loss = 0.0
    for part in _micro_batches(training, rows):
        share = token_losses(training.model, part, training.settings.precision).sum() / learned
        share.backward()  # type: ignore[no-untyped-call]
        loss += share.item()
    norm = nn.utils.clip_grad_norm_(training.model.parameters(), training.settings.max_grad_norm)
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
        optimiser.zero_grad()
    return {"loss": loss, "grad_norm": float(norm), "learning_rate": rate}


def token_losses(model: PreTrainedModel, batch: PackedBatch, precision: Precision) -> Tensor:
    """-log p [learned tokens] of every learned token given the ones before it in its own sequence."""
    learned = batch.targets != IGNORED
    with autocast(model.device, precision):
        # Without use_cache=False neighbours in a row would see each other: see packing.
        output = model.base_model(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False)
        logits = logits_from(model, output.last_hidden_state[learned])
    return functional.cross_entropy(logits.float(), batch.targets[learned], reduction="none")


@torch.no_grad()
def mean_loss(training: Training, sequences: Sequence[LearningSequence]) -> float:
    """The mean of -log p over all learned tokens of the sequences, in nats."""
    rows = [[sequences[index] for index in row] for row in pack([len(one) for one in sequences], training.columns)]
    losses = [
        token_losses(training.model, part, training.settings.precision) for part in _micro_batches(training, rows)
    ]
    return float(torch.cat(losses).mean())


def _micro_batches(training: Training, rows: Sequence[Sequence[LearningSequence]]) -> list[PackedBatch]:
    size = max(1, training.settings.micro_batch_tokens // training.columns)
    device = training.model.device
    return [packed_batch(rows[at : at + size], training.columns, device) for at in range(0, len(rows), size)]


def _measure(training: Training) -> dict[str, float]:
    """What an epoch is judged by: nothing where nothing is held out."""
    return {"held_out_loss": mean_loss(training, training.held_out)} if training.held_out else {}
