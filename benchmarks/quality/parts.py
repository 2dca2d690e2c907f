"""What is asked of the reward model, one function a question: fits, and rows of figures from them."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, geometric_mean

from benchmarks.quality.corpora import Fold, plain_pairs, prompt_of, strict, with_ties
from benchmarks.quality.figures import ACCURACY, ECE, NLL, Row, averaged, comparison, ends, joined, row
from benchmarks.quality.fits import Fit, Fitter, Measured
from worker.learning.evaluation import bootstrap_mean
from worker.learning.records import Label
from worker.learning.reward.evaluation import calibration_by_chance
from worker.learning.reward.fitting import RewardSettings

SEED = 1
MEMBERS = 4
FLOOR, STRETCH, CALIBRATED = 0.82, 0.84, 0.04
ARGUMENTS = RewardSettings(
    epochs=2,
    learning_rate=4e-4,
    head_learning_rate=1e-3,
    adam_epsilon=1e-8,
    warmup_share=0.1,
    max_tokens=256,
    micro_batch_tokens=16_384,
)
"""Each argument is read once an epoch, whatever it is compared with: a step holds all labels of a side of a debate.
So there are few steps, and the learning rate is high."""
RATES = (2e-4, ARGUMENTS.learning_rate)
"""Learning rates of which each fold takes the one that the debates it keeps back like better."""
ANSWERS = replace(ARGUMENTS, epochs=1, learning_rate=1e-4, batch_sets=16, max_tokens=128, micro_batch_tokens=None)


@dataclass(frozen=True)
class Checked:
    """A fold, and a fit without each of the debates that are kept back, at the learning rate that they chose."""

    fold: Fold
    rate: float
    fits: list[Measured]

    @property
    def first(self) -> Measured:
        """What other ways of fitting on the same debates are compared with."""
        return self.fits[0]


def argument_fit(
    fold: Fold,
    labels: Sequence[Label],
    validation: Sequence[Label],
    seed: int = SEED,
    rate: float = ARGUMENTS.learning_rate,
) -> Fit:
    """A fit whose steps hold all labels of a prompt; it is tested on the clean pairs of the test debates."""
    largest = max(Counter(map(prompt_of, labels)).values())
    settings = replace(ARGUMENTS, batch_sets=largest, learning_rate=rate)
    return Fit(labels, validation, strict(fold.test), settings, seed)


def strict_fit(fold: Fold, place: int = 0, seed: int = SEED, rate: float = ARGUMENTS.learning_rate) -> Fit:
    """On the clean pairs, as published figures are made, without one of the debates that are kept back."""
    return argument_fit(fold, *map(strict, fold.without(place)), seed, rate)


def run(fitter: Fitter, fits: Sequence[Fit], say: Callable[[str], None]) -> list[Measured]:
    """All fits' results, in their order."""
    measured = []
    for number, future in enumerate(fitter.start(fits), start=1):
        own = future.result()
        measured.append(own)
        say(
            f"  {number} of {len(fits)}: {len(fits[number - 1].labels):,} labels, {own.seconds:.0f} s,"
            f" slope {own.slope:.2f}, accuracy {ACCURACY.of(own.pairs):.3f}"
        )
    return measured


def check(
    fitter: Fitter,
    folds: Sequence[Fold],
    places: Sequence[int],
    rates: Sequence[float],
    say: Callable[[str], None],
) -> list[Checked]:
    """Each fold's fits without one of the debates that are kept back, which calibrates that fit.

    Those debates alone choose the learning rate: the lowest mean of their own negative log-likelihoods.
    """
    tried = [(fold, rate, place) for fold in folds for rate in rates for place in places]
    measured = run(fitter, [strict_fit(fold, place, rate=rate) for fold, rate, place in tried], say)
    ways = iter(measured)
    checked = []
    for fold in folds:
        own = [Checked(fold, rate, [next(ways) for _ in places]) for rate in rates]
        checked.append(min(own, key=lambda one: fmean(fit.kept_back_nll for fit in one.fits)))
        say(f"  fold {fold.number}: learning rate {checked[-1].rate:g}")
    return checked


def final_fit(checked: Checked) -> Fit:
    """On all training debates, with the mean slope by those kept back."""
    fit = argument_fit(checked.fold, strict(checked.fold.training), (), rate=checked.rate)
    return replace(fit, slope=geometric_mean(one.slope for one in checked.fits))


def averaging(fit: Fit) -> Fit:
    """As many fits as an ensemble has members, made one model by the mean of their weights."""
    return replace(fit, settings=replace(fit.settings, averaged_fits=MEMBERS))


def cross_topic(measured: Sequence[Measured], how: str = "") -> list[Row]:
    """Is the more convincing argument found in debates that were never seen, and are the probabilities right?"""
    pairs = [one.pairs for one in measured]
    accuracy, longer = [ACCURACY.of(own) for own in pairs], [float(one.longer.mean()) for one in measured]
    every = joined(pairs)
    interval = bootstrap_mean(every.right, every.prompts, SEED)
    whole = f"arguments, {len(pairs)} folds{how}"
    rows = [
        row(f"arguments, fold {number}{how}", ACCURACY, [own], [other], "longer wins")
        for number, (own, other) in enumerate(zip(accuracy, longer, strict=True), start=1)
    ]
    floor = row(f"{whole}, floor", ACCURACY, accuracy, longer, "longer wins", FLOOR)
    floor["interval"] = ends(interval)
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


def curve(fitter: Fitter, checked: Sequence[Checked], sizes: Sequence[int], say: Callable[[str], None]) -> list[Row]:
    """How much better does it get by more labels? Random subsets of the labels of all training debates, nested."""
    fits = []
    for size in sizes:
        for one in checked:
            whole = strict_fit(one.fold)
            some = random.Random(SEED).sample(whole.labels, len(whole.labels))[:size]
            fits.append(argument_fit(one.fold, some, whole.validation, rate=one.rate))
    measured = run(fitter, fits, say)
    rows = []
    for place, size in enumerate(sizes):
        own = measured[place * len(checked) : (place + 1) * len(checked)]
        rows += _curve_rows(f"arguments, {size:,} labels", own)
    return [*rows, *_curve_rows("arguments, all labels", [one.first for one in checked])]


def _curve_rows(case: str, measured: Sequence[Measured]) -> list[Row]:
    return [row(case, metric, [metric.of(one.pairs) for one in measured]) for metric in (ACCURACY, NLL)]


def ensembles(fitter: Fitter, checked: Sequence[Checked], say: Callable[[str], None]) -> list[Row]:
    """Does it help to ask the head's posterior, the mean of several models' weights, or all of them, instead of one?"""
    seeds = range(SEED + 1, SEED + MEMBERS)
    others = [strict_fit(one.fold, seed=seed, rate=one.rate) for seed in seeds for one in checked]
    alone = [strict_fit(one.fold, rate=one.rate) for one in checked]
    fitted = run(fitter, [*others, *map(averaging, alone)], say)
    measured = [*(one.first for one in checked), *fitted[: len(others)]]
    # By fold and then by member; a single model is every member, one after another.
    members = [measured[place :: len(checked)] for place in range(len(checked))]
    single = [own.pairs for fold in members for own in fold]
    moderated = [own.moderated for fold in members for own in fold]
    mean_weights = [own.pairs for own in fitted[len(others) :] for _ in range(MEMBERS)]
    together = [averaged([own.pairs for own in fold]) for fold in members for _ in fold]
    return [
        *comparison("arguments, posterior of the head", moderated, single, "single model", MEMBERS),
        *comparison(f"arguments, mean weights of {MEMBERS} models", mean_weights, single, "single model", MEMBERS),
        *comparison(f"arguments, {MEMBERS} models", together, single, "single model", MEMBERS),
    ]


def annotator_noise(fitter: Fitter, folds: Sequence[Fold], say: Callable[[str], None]) -> list[Row]:
    """Is it better to learn whom to believe than to let the majority decide? On all pairs, clean or not."""
    fits = []
    for fold in folds:
        sides = [[pair for pair in side if pair.votes] for side in fold.without(0)]
        votes = [[label for pair in side for label in pair.vote_labels] for side in sides]
        majority = argument_fit(fold, *([pair.majority_label for pair in side] for side in sides))
        alike = argument_fit(fold, *votes)
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
