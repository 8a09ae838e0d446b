"""Measure how often the verdict is wrong, on comparisons whose truth is known.

    python benchmarks/verdict_error_rates.py --write docs/benchmarks/...md

The new rule is `transferlib.comparison.statistics` on test predictions. The old one looked at validation accuracy: the
best arm was separated from another where mean - sd over seeds was above the other's mean + sd; of those not separated,
the cheapest was recommended where it cost less than 0.9 of the best. One process, one core.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from measuring import machine_line, table
from prediction_tables import REGIMES
from rate_tuning import ROWS_HEADER, SUMMARY_HEADER, measure_tuning
from repeated_verdicts import GAP, measure_metrics, measure_rates

from transferlib.comparison.power import detectable_difference
from transferlib.names import METRICS, MIN_SEEDS

NUMS_IMAGES, NUMS_SEEDS, NUMS_ARMS = (45, 150, 300, 1000, 3000), (1, 2, 3, 5, 10), (2, 3, 5, 8)


PROMISES = (
    ("false separations, 3 seeds or more: 7 % at most", "false", MIN_SEEDS, 0),
    ("95 % limits of a pair, 3 seeds or more, 150 images or more: 93 to 97 %", "pair_covered", MIN_SEEDS, 150),
    ("95 % limits of these models, 150 images or more: 93 to 97 %", "models_covered", 1, 150),
    ("95 % limits of all arms at once, 3 seeds or more, 150 images or more", "arms_covered", MIN_SEEDS, 150),
    ("good enough, though worse by the margin: 5 % at most", "good_enough_but_worse", MIN_SEEDS, 0),
    ("old rule: false separations, 3 seeds or more", "old_false", MIN_SEEDS, 0),
)
"""What is promised, of which figure, from how many seeds and images on."""


COLUMNS = (
    ("false separations, %", "false", 100, 1),
    ("old rule", "old_false", 100, 0),
    ("found of 2 points, %", "found", 100, 0),
    ("old rule", "old_found", 100, 0),
    ("pair covered, %", "pair_covered", 100, 1),
    ("these models covered, %", "models_covered", 100, 1),
    ("all arms covered, %", "arms_covered", 100, 1),
    ("good enough though 2 points worse, %", "good_enough_but_worse", 100, 1),
    ("arm to train next: points lost", "regret", 100, 1),
    ("old rule", "old_regret", 100, 1),
    ("model handed over: points below the best arm", "file_regret", 100, 1),
    ("old rule", "old_file_regret", 100, 1),
)
"""Of the table of a regime: title, name, factor and digits."""


def rates_section(num_repetitions: int, seed: int) -> str:
    """Return what became of the promises, and a table for each regime: each cell for 2, 3, 5 and 8 arms."""
    parts, promised = [], {}
    for number, (name, regime) in enumerate(REGIMES.items()):
        rows = []
        for num_images in NUMS_IMAGES:
            generator = np.random.default_rng([seed, number, num_images])
            found = measure_rates(regime, num_images, NUMS_SEEDS, NUMS_ARMS, num_repetitions, generator)
            promised.update({(num_images, *key, name): rates for key, rates in found.items()})
            for seeds in NUMS_SEEDS:
                cells = [
                    _cell([found[seeds, arms].get(key) for arms in NUMS_ARMS], factor, digits)
                    for _, key, factor, digits in COLUMNS
                ]
                rows.append([num_images, seeds, *cells])
            _progress(f"{name}, {num_images} images")
        stds = " / ".join(f"{100 * std:g}" for std in regime.seed_stds)
        title = (
            f"### Regime {name}: accuracy {regime.accuracy}, seed sd {stds} points, seeds differ on "
            f"{regime.seed_disagreement:g} and arms on {regime.arm_disagreement:g} times the errors"
        )
        parts.append(f"{title}\n\n{table(('images', 'seeds', *(title for title, *_ in COLUMNS)), rows)}")
    return "\n\n".join([_promises(promised), *parts])


def _promises(found: Mapping[tuple[int, int, int, str], Mapping[str, float]]) -> str:
    """Return what became of each promise, over all settings (images, seeds, arms, regime)."""
    rows = []
    for what, key, min_seeds, min_images in PROMISES:
        values = [
            100 * rates[key]
            for (images, seeds, *_), rates in found.items()
            if seeds >= min_seeds and images >= min_images and key in rates
        ]
        rows.append([what, f"{np.mean(values):.1f}", f"{min(values):.1f}", f"{max(values):.1f}", len(values)])
    return table(("promise", "mean, %", "least", "most", "settings"), rows)


def _cell(values: Iterable[float | None], factor: float, digits: int) -> str:
    texts = ["-" if value is None else f"{factor * value:.{digits}f}" for value in values]
    return texts[0] if len(set(texts)) == 1 and texts[0] == "-" else " · ".join(texts)


def metrics_section(num_repetitions: int, seed: int) -> str:
    """Return a table of the new rule with each metric."""
    keys = ("false", "pair_covered", "arms_covered", "found", "good_enough_but_worse")
    rows: list[list[object]] = []
    for number, (name, regime) in enumerate(REGIMES.items()):
        for num_images in (150, 500):
            generator = np.random.default_rng([seed, 10, number, num_images])
            by_gap = [
                measure_metrics(regime, gap, num_images, (3, 5), 3, num_repetitions, generator) for gap in (0.0, GAP)
            ]
            for key, equal in by_gap[0].items():
                both = {**by_gap[1][key], **equal}
                rows.append([key[0], name, num_images, key[1], *(f"{100 * both[column]:.1f}" for column in keys)])
            _progress(f"metrics: {name}, {num_images} images")
    header = (
        *("metric", "regime", "images", "seeds", "false separations, %", "pair covered, %", "all arms covered, %"),
        *("found of 2 points of accuracy, %", "good enough though worse by it, %"),
    )
    rows.sort(key=lambda row: METRICS.index(str(row[0])))
    return table(header, rows)


def figures_section(num_repetitions: int, seed: int) -> str:
    """Return the figures that the issue began with, for the old rule and the new one."""
    regime, rows = REGIMES["M"], []
    for num_images in (80, 1000):
        old, new = [], []
        for number, each in enumerate(REGIMES.values()):
            generator = np.random.default_rng([seed, 20, number, num_images])
            found = measure_rates(each, num_images, (3,), NUMS_ARMS[1:], num_repetitions, generator, (0.0,))
            old += [rates["old_false"] for rates in found.values()]
            new += [rates["false"] for rates in found.values()]
        what = f"equal arms, 3 seeds, {num_images} images: some pair is separated (all regimes; 3, 5 and 8 arms), %"
        rows.append([what, _span(old), _span(new)])
    for num_images in (300, 1000):
        generator = np.random.default_rng([seed, 21, num_images])
        found = measure_rates(regime, num_images, (2, 3, 10, 100), (2,), num_repetitions, generator, (GAP,))
        what = f"true gap 2 points, seed sd 1.5 points, {num_images} images: found with 2, 3, 10 and 100 seeds, %"
        rows.append([what, *(_cell([rates.get(key) for rates in found.values()], 100, 0) for key in FOUND)])
    for num_images in (80, 300):
        generator = np.random.default_rng([seed, 22, num_images])
        rates = measure_rates(regime, num_images, (3,), (3,), num_repetitions, generator, (GAP,))[3, 3]
        what = f"dearest of 3 arms truly 2 points better, 3 seeds, {num_images} images: "
        rows += [[what + title, *(_cell([rates.get(key)], *scale) for key in keys)] for title, keys, *scale in DEAREST]
    _progress("figures")
    return table(("", "old rule", "new rule"), rows)


FOUND = ("old_found", "found")
DEAREST = (
    (
        "a worse arm is recommended (new: good enough), %",
        ("old_recommends_worse", "good_enough_but_worse"),
        100,
        1,
    ),
    ("the highest mean on validation is a worse arm's, %", ("highest_mean_is_worse", "highest_mean_is_worse"), 100, 0),
    ("the model handed over is a worse arm's, %", ("old_recommends_worse", "file_of_worse_arm"), 100, 0),
    ("true accuracy of that model over the best arm's mean, points", ("old_file_regret", "file_regret"), -100, 1),
)
"""Figures of one experiment: title, names for the old rule and the new one, factor and digits."""


def _span(shares: Sequence[float]) -> str:
    return f"{100 * min(shares):.0f} to {100 * max(shares):.0f}"


def detectable_section(num_repetitions: int, seed: int) -> str:
    """Return what `detectable_difference` promises for three arms, and how often it is found."""
    regime, rows = REGIMES["M"], []
    for num_images in (60, 150, 300, 1000, 3000):
        cells = []
        for seeds in (1, 3, 5, 8, 10):
            gap = detectable_difference(num_images, seeds, 3)
            if seeds < MIN_SEEDS:
                cells.append(f"{100 * gap:.1f}")
                continue
            generator = np.random.default_rng([seed, 30, num_images, seeds])
            found = measure_rates(regime, num_images, (seeds,), (3,), num_repetitions, generator, (gap,))
            cells.append(f"{100 * gap:.1f} ({100 * found[seeds, 3]['found']:.0f} %)")
        rows.append([num_images, *cells])
    _progress("detectable differences")
    header = ("images", "1 seed (these models)", "3 seeds", "5", "8", "10")
    return table(header, rows)


def tuning_section(num_repetitions: int, seed: int) -> str:
    """Return what tuning first loses and gains: better is the way that keeps the promise on false separations."""
    rows, summary = measure_tuning(num_repetitions, seed)
    _progress("tuning")
    return f"Over the rows of equal arms:\n\n{table(SUMMARY_HEADER, summary)}\n\n{table(ROWS_HEADER, rows)}"


BEGAN = time.perf_counter()


def _progress(what: str) -> None:
    print(f"{time.perf_counter() - BEGAN:6.0f} s  {what}", file=sys.stderr, flush=True)


INTRODUCTION = """\
Prediction tables are drawn from a latent probit (image difficulty, arm x image, seed x image and a seed's own level),
and both rules read them: the new one, `transferlib.comparison.statistics`, on test, the old one on as many validation
images. Seeds are those of each arm. `a · b · c · d` are figures for 2, 3, 5 and 8 arms; a dash: nothing is claimed."""


@dataclass(frozen=True)
class Section:
    """Say what a section of the result shows, and what makes it from (repetitions, seed)."""

    title: str
    note: str
    make: Callable[[int, int], str]
    share: float = 1.0
    """Of the repetitions asked for."""


SECTIONS = {
    "figures": Section(
        "The figures that the old rule was blamed for", "As many images on validation as on test.", figures_section
    ),
    "detectable": Section(
        "The smallest difference that is found four times of five",
        "By `detectable_difference` for three arms in regime M, in points; in brackets, how often it was found.",
        detectable_section,
        0.5,
    ),
    "tuning": Section(
        "Tuning the rate first, or for each seed",
        "Two arms, equal at their better rates; regime M, 300 test images. Found: where one is 2 points better. "
        "The model handed over: the best on validation of both arms.",
        tuning_section,
    ),
    "metrics": Section(
        "Each metric",
        "Three arms, five classes of 40, 30, 15, 10 and 5 % of the images, the smaller ones harder; new rule.",
        metrics_section,
        0.5,
    ),
    "rates": Section(
        "All regimes",
        "Covered: by 95 % limits, of one pair or of all arms at once; with 1 and 2 seeds the arms' limits are those of "
        "these models. Found: the better arm is separated from one that is 2 points worse. Points lost: of the best "
        "arm's true accuracy, where that is the dearest and 2 points better, by training the arm that the rule names "
        "(new: the cheapest that is good enough within 2 points, else the highest mean).",
        rates_section,
    ),
}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2000, help="of each experiment (default 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers (default 0)")
    parser.add_argument("--only", choices=SECTIONS, nargs="+", default=list(SECTIONS), help="default: all")
    parser.add_argument("--write", type=Path, help="markdown file for the result")
    args = parser.parse_args()
    parts = ["# How often the verdict is wrong", INTRODUCTION]
    for name in args.only:
        section = SECTIONS[name]
        repetitions = max(1, round(section.share * args.repetitions))
        made = section.make(repetitions, args.seed)
        parts += [f"## {section.title}", f"{section.note} {repetitions:,} repetitions.", made]
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy"))
    parts.append(f"{machine_line()} {versions}; {time.perf_counter() - BEGAN:.0f} s on one core.")
    text = "\n\n".join(parts) + "\n"
    print(text)
    if args.write:
        args.write.write_text(text)


if __name__ == "__main__":
    main()
