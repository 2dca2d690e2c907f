"""What is asked of the reward model, one function a question: fits, and rows of figures from them."""

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from quality.corpora import Fold, plain_pairs, prompt_of, strict, with_ties
from quality.figures import ACCURACY, ECE, NLL, Row, averaged, comparison, joined, row
from quality.fits import Fit, Fitter, Measured
from worker.learning.evaluation import bootstrap_mean
from worker.learning.records import Label
from worker.learning.reward.evaluation import calibration_by_chance
from worker.learning.reward.fitting import RewardSettings

SEED = 1
MEMBERS = 4
FLOOR, STRETCH, CALIBRATED = 0.82, 0.84, 0.04
ARGUMENTS = RewardSettings(
    epochs=2,
    head_learning_rate=1e-3,
    answer_learning_rate=5e-2,
    adam_epsilon=1e-8,
    warmup_share=0.1,
    max_tokens=256,
    micro_batch_tokens=16_384,
)
"""Each argument is read once an epoch, whatever it is compared with: a step holds all labels of a side of a debate.
So there are few steps, and the learning rate is high."""
RATES = (2e-4, 4e-4)
"""Learning rates that the validation debates choose from."""
ANSWERS = replace(ARGUMENTS, epochs=1, learning_rate=1e-4, batch_sets=16, max_tokens=192, micro_batch_tokens=None)


@dataclass(frozen=True)
class Chosen:
    """A fold, what its validation debates chose, and the figures of that without and with these debates."""

    fold: Fold
    rate: float
    measured: Measured
    """Fitted on the training debates alone."""


def argument_fit(
    fold: Fold, rate: float, labels: Sequence[Label], validation: Sequence[Label], seed: int = SEED
) -> Fit:
    """A fit whose steps hold all labels of a prompt; it is tested on the clean pairs of the test debates."""
    largest = max(Counter(map(prompt_of, labels)).values())
    settings = replace(ARGUMENTS, learning_rate=rate, batch_sets=largest)
    return Fit(labels, validation, strict(fold.test), settings, seed)


def strict_fit(fold: Fold, rate: float, seed: int = SEED) -> Fit:
    """On the clean pairs, as published figures are made."""
    return argument_fit(fold, rate, strict(fold.training), strict(fold.validation), seed)


def run(fitter: Fitter, fits: Sequence[Fit], say: Callable[[str], None]) -> list[Measured]:
    """All fits' results, in their order."""
    measured = []
    for number, future in enumerate(fitter.start(fits), start=1):
        own = future.result()
        measured.append(own)
        say(
            f"  {number} of {len(fits)}: {len(fits[number - 1].labels):,} labels, {own.epochs} epochs,"
            f" {own.seconds:.0f} s, accuracy {ACCURACY.of(own.pairs):.3f}"
        )
    return measured


def choose(fitter: Fitter, folds: Sequence[Fold], rates: Sequence[float], say: Callable[[str], None]) -> list[Chosen]:
    """A fit for each fold and rate, of which the validation debates keep one."""
    tried = run(fitter, [strict_fit(fold, rate) for fold in folds for rate in rates], say)
    by_fold = [tried[place : place + len(rates)] for place in range(0, len(tried), len(rates))]
    chosen = []
    for fold, own in zip(folds, by_fold, strict=True):
        likelihoods = [one.validation_nll or math.inf for one in own]
        best = likelihoods.index(min(likelihoods))
        chosen.append(Chosen(fold, rates[best], own[best]))
    return chosen


def final_fit(one: Chosen) -> Fit:
    """The chosen fit once more, on the validation debates too; epochs and slope are those that they chose."""
    labels = strict([*one.fold.training, *one.fold.validation])
    fit = argument_fit(one.fold, one.rate, labels, ())
    settings = replace(fit.settings, epochs=one.measured.epochs)
    return replace(fit, settings=settings, slope=one.measured.slope)


def cross_topic(fitter: Fitter, chosen: Sequence[Chosen], say: Callable[[str], None]) -> list[Row]:
    """Is the more convincing argument found in debates that were never seen, and are the probabilities right?"""
    pairs = [own.pairs for own in run(fitter, [final_fit(one) for one in chosen], say)]
    accuracy, longer = [ACCURACY.of(own) for own in pairs], [float(one.measured.longer.mean()) for one in chosen]
    every = joined(pairs)
    interval = bootstrap_mean(every.right, every.prompts, SEED)
    whole = f"arguments, {len(pairs)} folds"
    rows = [
        row(f"arguments, fold {one.fold.number}", ACCURACY, [own], [other], "longer wins") | {"learning_rate": one.rate}
        for one, own, other in zip(chosen, accuracy, longer, strict=True)
    ]
    floor = row(f"{whole}, floor", ACCURACY, accuracy, longer, "longer wins", FLOOR)
    floor["interval"] = [round(interval.low, 4), round(interval.high, 4)]
    by_chance = calibration_by_chance(every.confidences, SEED)
    calibration = row(whole, ECE, [ECE.of(own) for own in pairs], goal=CALIBRATED, value=ECE.of(every))
    calibration["by_chance"] = round(by_chance, 4)
    return [
        *rows,
        floor,
        row(f"{whole}, stretch", ACCURACY, accuracy, longer, "longer wins", STRETCH),
        calibration,
        row(whole, NLL, [NLL.of(own) for own in pairs]),
    ]


def curve(fitter: Fitter, chosen: Sequence[Chosen], sizes: Sequence[int], say: Callable[[str], None]) -> list[Row]:
    """How much better does it get by more labels? Random subsets of the labels of all training debates, nested."""
    fits = []
    for size in sizes:
        for one in chosen:
            labels = strict(one.fold.training)
            some = random.Random(SEED).sample(labels, len(labels))[:size]
            fits.append(argument_fit(one.fold, one.rate, some, strict(one.fold.validation)))
    measured = run(fitter, fits, say)
    rows = []
    for place, size in enumerate(sizes):
        own = measured[place * len(chosen) : (place + 1) * len(chosen)]
        rows += _curve_rows(f"arguments, {size:,} labels", own)
    return [*rows, *_curve_rows("arguments, all labels of 6 debates", [one.measured for one in chosen])]


def _curve_rows(case: str, measured: Sequence[Measured]) -> list[Row]:
    return [row(case, metric, [metric.of(one.pairs) for one in measured]) for metric in (ACCURACY, NLL)]


def ensembles(fitter: Fitter, chosen: Sequence[Chosen], say: Callable[[str], None]) -> list[Row]:
    """Does it help to ask the head's posterior, or several models, instead of one?"""
    seeds = range(SEED + 1, SEED + MEMBERS)
    others = run(fitter, [strict_fit(one.fold, one.rate, seed) for seed in seeds for one in chosen], say)
    measured = [*(one.measured for one in chosen), *others]
    # By fold and then by member; a single model is every member, one after another.
    members = [measured[place :: len(chosen)] for place in range(len(chosen))]
    single = [own.pairs for fold in members for own in fold]
    moderated = [own.moderated for fold in members for own in fold]
    together = [averaged([own.pairs for own in fold]) for fold in members for _ in fold]
    return [
        *comparison("arguments, posterior of the head", moderated, single, "single model", MEMBERS),
        *comparison(f"arguments, {MEMBERS} models", together, single, "single model", MEMBERS),
    ]


def annotator_noise(fitter: Fitter, chosen: Sequence[Chosen], say: Callable[[str], None]) -> list[Row]:
    """Is it better to learn whom to believe than to let the majority decide? On all pairs, clean or not."""
    fits = []
    for one in chosen:
        sides = [[pair for pair in side if pair.votes] for side in (one.fold.training, one.fold.validation)]
        votes = [[label for pair in side for label in pair.vote_labels] for side in sides]
        majority = argument_fit(one.fold, one.rate, *([pair.majority_label for pair in side] for side in sides))
        alike = argument_fit(one.fold, one.rate, *votes)
        learned = replace(alike, settings=replace(alike.settings, annotators="learned"))
        fits += [majority, alike, learned]
    measured = run(fitter, fits, say)
    majority_pairs, vote_pairs, learned_pairs = ([own.pairs for own in measured[way::3]] for way in range(3))
    return [
        *comparison("arguments, every judgment, all believed alike", vote_pairs, majority_pairs, "majority"),
        *comparison("arguments, every judgment, noise learned", learned_pairs, majority_pairs, "majority"),
    ]


def answer_likelihoods(fitter: Fitter, labels: Sequence[Label], count: int, say: Callable[[str], None]) -> list[Row]:
    """Do ties and grades teach more than the order alone? Answers of language models, split by prompt."""
    prompts = sorted({prompt_of(label) for label in labels})
    random.Random(SEED).shuffle(prompts)
    fits = []
    for fold in range(count):
        tested = set(prompts[fold::count])
        calibrating = set([prompt for prompt in prompts if prompt not in tested][::5])
        for way in (plain_pairs, with_ties, list[Label]):
            training = way(label for label in labels if prompt_of(label) not in tested | calibrating)
            validation = way(label for label in labels if prompt_of(label) in calibrating)
            test = plain_pairs(label for label in labels if prompt_of(label) in tested)
            fits.append(Fit(training, validation, test, ANSWERS, SEED))
    measured = run(fitter, fits, say)
    plain, tied, graded = ([own.pairs for own in measured[way::3]] for way in range(3))
    return [
        *comparison("answers, with ties", tied, plain, "plain pairs"),
        *comparison("answers, with ties and grades", graded, plain, "plain pairs"),
    ]
