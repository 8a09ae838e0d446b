"""Prediction tables of comparisons whose truth is known: which image each arm and seed gets right, by a latent probit.

An arm's seed is right about an image where

    z = mu_arm + sigma_arm * seed + sqrt(r_image) * image + sqrt(r_arm) * (arm x image) + sqrt(r_seed) * (seed x image)

is above 0; all effects are standard normal and r_image + r_arm + r_seed = 1. A regime says what is seen of real tables
(accuracy, its spread over seeds, how often two seeds and two arms differ); the shares r and sigma are solved for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(80)
"""Gauss-Hermite: sum(WEIGHTS f(NODES)) is the mean of f over a standard normal."""
WEIGHTS = WEIGHTS / WEIGHTS.sum()

LOGIT_SCALE = 3.0
"""Logit of the label over its rival's, for a latent value of 1: mean log-loss is then about that of a trained model."""
OTHERS_LOGIT = -4.0
"""Logit of the classes that are neither label nor rival; the rival's is 0."""


@dataclass(frozen=True)
class Regime:
    """Say how prediction tables look; arms beyond the list of spreads begin it anew."""

    accuracy: float
    seed_stds: tuple[float, ...]
    """Spread of an arm's true accuracy over seeds, in shares."""
    seed_disagreement: float
    """Images on which two seeds of an arm differ, as a share of the errors."""
    arm_disagreement: float
    """Images on which one seed of one arm differs from one of another, as a share of the errors."""

    @cached_property
    def sigmas(self) -> tuple[float, ...]:
        """Return the spread of a seed's effect on the latent scale, for each of the spreads."""
        return tuple(_sigma(self.accuracy, std) for std in self.seed_stds)

    @cached_property
    def shares(self) -> tuple[float, float, float]:
        """Return r_image, r_arm and r_seed."""
        variance = float(np.mean(np.square(self.sigmas)))
        error = 1 - self.accuracy
        same_arm = _correlation(self.accuracy, variance, self.seed_disagreement * error)
        between = _correlation(self.accuracy, variance, self.arm_disagreement * error)
        return between, same_arm - between, 1 - same_arm

    def sigma(self, arm: int) -> float:
        """Return sigma of an arm by its index."""
        return self.sigmas[arm % len(self.sigmas)]

    def mu(self, arm: int, accuracy: float) -> float:
        """Return the latent mean that gives an arm this accuracy over all images and seeds."""
        return float(ndtri(accuracy) * np.sqrt(1 + self.sigma(arm) ** 2))


REGIMES = {
    "L": Regime(0.95, (0.005,), 0.5, 0.8),
    "M": Regime(0.90, (0.015,), 0.5, 0.8),
    "X": Regime(0.90, (0.03, 0.02, 0.008), 0.6, 0.9),
    "H": Regime(0.87, (0.03,), 0.8, 1.0),
}
"""Accuracy, spread and disagreement of seeds as measured on tables of real comparisons; that of arms is assumed."""


def accuracies_with_gap(base: float, gap: float, num_arms: int) -> list[float]:
    """Return true accuracies of which the first arm's is better by the gap, around the base."""
    return [base + gap / 2] + [base - gap / 2] * (num_arms - 1)


@dataclass(frozen=True, eq=False)
class Tables:
    """Hold repetitions of one comparison.

    Attributes:
        values: float64 [R, A, S, N], 1 where right.
        model_accuracies: float64 [R, A, S], the true accuracy of each model: over all images there could be.
    """

    values: Floats
    model_accuracies: Floats


def draw_tables(
    regime: Regime,
    accuracies: Sequence[float],
    num_seeds: int,
    num_images: int,
    num_repetitions: int,
    generator: np.random.Generator,
) -> Tables:
    """Draw prediction tables.

    Args:
        regime: How arms, seeds and images vary.
        accuracies: A true accuracies.
        num_seeds: S.
        num_images: N.
        num_repetitions: R.
        generator: Of the random numbers.
    """
    latent, means = _draw_latent(regime, accuracies, num_seeds, num_images, num_repetitions, generator)
    return Tables((latent > 0).astype(np.float64), ndtr(means))


def _draw_latent(
    regime: Regime,
    accuracies: Sequence[float],
    num_seeds: int,
    num_images: int,
    num_repetitions: int,
    generator: np.random.Generator,
    offsets: Floats | None = None,
) -> tuple[npt.NDArray[np.float32], Floats]:
    """Return latent values [R, A, S, N] and each model's mean [R, A, S]; offsets [R, N] are added to images."""
    of_image, of_arm, of_seed = (np.float32(np.sqrt(share)) for share in regime.shares)
    num_arms = len(accuracies)
    sigmas = np.array([regime.sigma(arm) for arm in range(num_arms)])
    mus = np.array([regime.mu(arm, accuracy) for arm, accuracy in enumerate(accuracies)])
    seeds = generator.standard_normal((num_repetitions, num_arms, num_seeds))
    means = mus[:, None] + sigmas[:, None] * seeds
    shared = of_image * generator.standard_normal((num_repetitions, 1, num_images), np.float32)
    shared = shared + of_arm * generator.standard_normal((num_repetitions, num_arms, num_images), np.float32)
    if offsets is not None:
        shared += offsets[:, None, :].astype(np.float32)
    latent = generator.standard_normal((num_repetitions, num_arms, num_seeds, num_images), np.float32)
    latent *= of_seed
    latent += shared[:, :, None, :]
    latent += means[..., None].astype(np.float32)
    return latent, means


@dataclass(frozen=True)
class Classes:
    """Say how many images classes have and how hard they are; the rival of a label is any other class.

    Attributes:
        priors: K shares of images.
        offsets: K numbers added to the latent value of a class.
    """

    priors: tuple[float, ...]
    offsets: tuple[float, ...]


FEW_OF_SOME = Classes((0.4, 0.3, 0.15, 0.1, 0.05), (0.3, 0.1, 0.0, -0.2, -0.4))
"""Five classes, of which the smaller are the harder ones."""


def draw_labels(classes: Classes, num_images: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw labels [N] by the classes' shares."""
    return generator.choice(len(classes.priors), num_images, p=classes.priors).astype(np.int64)


def draw_logits(
    regime: Regime,
    classes: Classes,
    accuracies: Sequence[float],
    num_seeds: int,
    labels: npt.NDArray[np.int64],
    generator: np.random.Generator,
) -> npt.NDArray[np.float32]:
    """Draw logits [A, S, N, K] of one comparison."""
    num_classes, num_images = len(classes.priors), len(labels)
    offsets = np.asarray(classes.offsets)[labels][None, :]
    latent, _ = _draw_latent(regime, accuracies, num_seeds, num_images, 1, generator, offsets)
    rivals = (labels + generator.integers(1, num_classes, (*latent.shape[1:3], num_images))) % num_classes
    logits = np.full((*latent.shape[1:], num_classes), OTHERS_LOGIT, np.float32)
    np.put_along_axis(logits, rivals[..., None], 0.0, axis=-1)
    label_places = np.broadcast_to(labels[:, None], (*latent.shape[1:], 1))
    np.put_along_axis(logits, label_places, np.float32(LOGIT_SCALE) * latent[0][..., None], axis=-1)
    return logits


def true_value(metric: str, regime: Regime, classes: Classes, arm: int, accuracy: float) -> float:
    """Return what an arm's metric is over all images and seeds there could be (of N without end for macro-F1)."""
    priors, offsets = np.asarray(classes.priors), np.asarray(classes.offsets)
    means = regime.mu(arm, accuracy) + offsets + regime.sigma(arm) * NODES[:, None]
    recalls = ndtr(means)
    by_metric: dict[str, Callable[[], Floats]] = {
        "accuracy": lambda: recalls @ priors,
        "balanced_accuracy": lambda: recalls.mean(axis=1),
        "macro_f1": lambda: _f1(priors, recalls),
        "log_loss": lambda: _log_loss(means, len(priors)) @ priors,
    }
    return float(WEIGHTS @ by_metric[metric]())


def _f1(priors: Floats, recalls: Floats) -> Floats:
    right = priors * recalls
    wrong = priors - right
    predicted = right + (wrong.sum(axis=1, keepdims=True) - wrong) / (len(priors) - 1)
    f1: Floats = (2 * right / (priors + predicted)).mean(axis=1)
    return f1


def _log_loss(means: Floats, num_classes: int) -> Floats:
    latent = means[..., None] + NODES
    others = 1 + (num_classes - 2) * np.exp(OTHERS_LOGIT)
    loss: Floats = np.log1p(others * np.exp(-LOGIT_SCALE * latent)) @ WEIGHTS
    return loss


def _sigma(accuracy: float, seed_std: float) -> float:
    """Return the latent spread at which accuracy has this spread over seeds."""

    def excess(sigma: float) -> float:
        reached = ndtr(ndtri(accuracy) * np.sqrt(1 + sigma**2) + sigma * NODES)
        return float(np.sqrt(WEIGHTS @ np.square(reached - accuracy))) - seed_std

    return float(brentq(excess, 0.0, 3.0))


def _correlation(accuracy: float, seed_variance: float, disagreement: float) -> float:
    """Return the share of image effects two models have in common, when they differ on so many images."""
    mean = ndtri(accuracy) * np.sqrt(1 + seed_variance)

    def excess(common: float) -> float:
        both = WEIGHTS @ np.square(ndtr((mean + np.sqrt(common) * NODES) / np.sqrt(1 - common + seed_variance)))
        return float(2 * (accuracy - both)) - disagreement

    return float(brentq(excess, 0.0, 0.999))
