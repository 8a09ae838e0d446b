"""Do two small pictures show the same: one is laid on the other, and their details are compared place by place.

First a quick check on frequencies, with one step of registration; what passes is registered in pixels (an affine map,
by inverse compositional steps). The map must be what a crop by a tenth or another frame of a burst can be. Then, around
each pixel, the correlation of the two after local mean and contrast are taken out, weighted by how much is to be seen
there: so a common background, a common frame or a common shape in the middle does not do.

Source: Baker and Matthews 2004, Lucas-Kanade 20 years on: a unifying framework (inverse compositional).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from transferlib.data.frequencies import CUTS, ORIENTATIONS, WINDOWS, Floats, window_matrices
from transferlib.data.lookalikes import OnProgress, Pairs
from transferlib.data.looks import SIDE

LEAST_LIKENESS = 0.77
"""Mean local correlation from which two pictures show the same. Of 12,000 CIFAR-10 images the most alike that do not
are at 0.77; of planted copies of photos 99 % are above 0.79."""
_LEAST_ALIKE_AFTER_STEP = 0.80
"""Cosine of the frequencies after one step of registration."""
_LEAST_DETAIL = 0.29
"""Share of fine detail (3 x 3 pixels) in coarse (7 x 7) that one of two must have to be compared by registration:
photos have 0.44 or more, 32-pixel images 0.32, enlarged 8-pixel scans, which all look alike, 0.26 or less."""
_LEAST_FINE = 0.8
"""Standard deviation of the fine detail, grey levels."""
_MOST_APART, _LEAST_CONTRAST = 1.0, 10.0
"""For pictures without detail: root mean square of what differs, and standard deviation of grey, grey levels."""
_MOST_UNLIKE, _UNLIKE_BELOW = 0.15, 0.4
"""Share of what is seen whose correlation, over 3 x 3 pixels, may be below this: two different things of one outline on
white have 0.19 or more, 98 % of planted copies 0.11 or less."""
_LEAST_SEEN, _LIKENESS_OF_LITTLE = 0.4, 0.92
"""Share of a picture with something to compare, below which it must agree to this and lie where it lay: of two ships on
an even sea one is the other, enlarged."""
_LEAST_FINE_SEEN = 0.68
"""Share of what is seen that is finer than a slope, which a background that is darker on one side is not: below it a
picture must agree as much, wherever it lies. Small things on such a background have 0.64 or less."""
_SCALES, _MOST_SHEAR, _MOST_SHIFT = (0.86, 1.16), 0.08, 0.14
_STILL = 0.02
_FEW_STEPS, _MORE_STEPS = 2, 3
"""Of registration: for all, and for those of which something may come."""
_LEAST_SO_FAR = 0.45
"""Mean local correlation, after the few steps, from which something may come."""
_FLOOR, _MIDDLE = 1.5, 6.0
"""Grey levels: of noise, and the local contrast that counts half."""
_RADIUS = 3
_BANDS = {
    radius: (np.abs(np.subtract.outer(np.arange(SIDE), np.arange(SIDE))) <= radius).astype(np.float32)
    for radius in (1, _RADIUS)
}
"""By radius: what sums up a line around each pixel."""
_CHUNK = 128
_PAIRS_AT_ONCE = 8_192
"""Pairs before it is said how far the work is."""

_MOST_APART_IN_COLOUR, _MOST_OTHER_COLOUR = 8.0, 0.8
"""Root mean square of what two colourings differ by, that all may have, and as a share of the stronger colouring."""
_GREY_BELOW = 1.5
"""Root mean square of a colouring below which a picture is grey: that may be a copy of one in colours."""

_NUM_FREQUENCIES, _LOWEST, _HIGHEST = 12, 2, 11
_ORDERS = np.add.outer(np.arange(_NUM_FREQUENCIES), np.arange(_NUM_FREQUENCIES))
_IS_USED = (_ORDERS >= _LOWEST) & (_ORDERS <= _HIGHEST)
_WEIGHTS = np.hypot(*np.meshgrid(np.arange(_NUM_FREQUENCIES), np.arange(_NUM_FREQUENCIES)))[_IS_USED].astype(np.float32)
_MATRICES = window_matrices(_NUM_FREQUENCIES)
_CENTRE, _HALF = (SIDE - 1) / 2, SIDE / 2
_LINE = ((np.arange(SIDE) - _CENTRE) / _HALF).astype(np.float32)
_X, _Y = (axis.astype(np.float32) for axis in np.meshgrid(_LINE, _LINE))
_GRID = np.stack([_X.ravel(), _Y.ravel(), np.ones(SIDE * SIDE, np.float32)])
"""[3, pixels], from -1 to 1."""
_SIX = np.arange(6)
_SLOPE = np.asarray(np.gradient(np.eye(SIDE), axis=0)) * _HALF
_LINES = np.concatenate(
    [_MATRICES[0] @ line for line in (np.eye(SIDE), np.diag(_LINE), _SLOPE, np.diag(_LINE) @ _SLOPE)]
).astype(np.float32)
"""[4 x frequencies, SIDE], of a line: its frequencies, those of it times the place, of its slope, and of that times the
place."""
_BLOCKS = np.stack(
    [
        (down * _NUM_FREQUENCIES + np.argwhere(_IS_USED)[:, 0]) * len(_LINES)
        + (across * _NUM_FREQUENCIES + np.argwhere(_IS_USED)[:, 1])
        for down, across in ((0, 0), (0, 3), (1, 2), (0, 2), (2, 1), (3, 0), (2, 0))
    ]
)
"""[7, used], where the frequencies of a picture are, and those of its six changes (`_steepest`)."""


def show_the_same(
    thumbnails: npt.NDArray[np.uint8], pairs: Pairs, on_progress: OnProgress = lambda done, total: None
) -> Floats:
    """Return how alike each pair is: LEAST_LIKENESS or more where they show the same, 0 where they do not.

    Args:
        thumbnails: [N, SIDE, SIDE] grey.
        pairs: P pairs that may.
        on_progress: Called with (pairs done, P).

    Returns:
        [P].
    """
    likeness = np.zeros(len(pairs.first), np.float32)
    for rows in _chunks(np.arange(len(likeness)), _PAIRS_AT_ONCE):
        on_progress(int(rows[0]), len(likeness))
        likeness[rows] = _likeness(thumbnails, pairs.where(rows))
    return likeness


def _likeness(thumbnails: npt.NDArray[np.uint8], pairs: Pairs) -> Floats:
    used, places = np.unique(np.concatenate([pairs.first, pairs.second]), return_inverse=True)
    is_detailed = has_detail(thumbnails[used])[places].reshape(2, -1).any(axis=0)
    likeness, after_step = np.zeros((2, len(pairs.first)), np.float32)
    for rows in _chunks(np.flatnonzero(is_detailed), 4 * _CHUNK):
        first, second = _laid_out(thumbnails, pairs.where(rows))
        after_step[rows] = _after_one_step(first, second, pairs.window[rows])
    for rows in _chunks(np.flatnonzero(after_step > _LEAST_ALIKE_AFTER_STEP), _CHUNK):
        first, second = _laid_out(thumbnails, pairs.where(rows))
        likeness[rows] = _registered_likeness(first, second, pairs.window[rows])
    for rows in _chunks(np.flatnonzero(~is_detailed & (pairs.window == 0)), 4 * _CHUNK):
        first, second = _laid_out(thumbnails, pairs.where(rows))
        apart = np.sqrt(((first - second) ** 2).mean(axis=(1, 2)))
        likeness[rows] = (apart <= _MOST_APART) & (first.std(axis=(1, 2)) >= _LEAST_CONTRAST)
    return likeness


def have_one_colouring(colours: npt.NDArray[np.uint8], pairs: Pairs) -> npt.NDArray[np.bool_]:
    """Say which pairs are coloured alike: the same drawing in red and in green shows two things, [P].

    What differs is held against the stronger of the two colourings, so that another light or white balance, the edge of
    a crop and what an encoder does to colours make no difference. A grey copy of a coloured picture is one.

    Args:
        colours: [N, COLOUR_SIDE, COLOUR_SIDE, 2] Cr and Cb.
        pairs: P pairs that show the same in grey.
    """
    first = colours[pairs.first].astype(np.float32) - 128
    second = _as_the_first(colours[pairs.second].astype(np.float32) - 128, pairs.orientation)
    apart, one, other = (np.sqrt((values**2).mean(axis=(1, 2, 3))) for values in (first - second, first, second))
    most = np.maximum(_MOST_APART_IN_COLOUR, _MOST_OTHER_COLOUR * np.maximum(one, other))
    return np.asarray((apart <= most) | (np.minimum(one, other) < _GREY_BELOW), np.bool_)


def has_detail(thumbnails: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Say which pictures hold enough to tell a copy from something alike, [N].

    Args:
        thumbnails: [N, SIDE, SIDE] grey.
    """
    found = np.zeros(len(thumbnails), np.bool_)
    for rows in _chunks(np.arange(len(thumbnails)), 8 * _CHUNK):
        grey = thumbnails[rows].astype(np.float32)
        everywhere = np.ones_like(grey[:1])
        fine, coarse = ((grey - _box(grey, r) / _box(everywhere, r)).std(axis=(1, 2)) for r in (1, _RADIUS))
        found[rows] = (fine >= _LEAST_FINE) & (fine >= _LEAST_DETAIL * coarse)
    return found


def _chunks(rows: npt.NDArray[np.int64], size: int) -> list[npt.NDArray[np.int64]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _laid_out(thumbnails: npt.NDArray[np.uint8], pairs: Pairs) -> tuple[Floats, Floats]:
    """Return the pictures of pairs, the second turned like the first, [P, SIDE, SIDE] each."""
    first, second = (thumbnails[rows].astype(np.float32) for rows in (pairs.first, pairs.second))
    return first, _as_the_first(second, pairs.orientation)


def _as_the_first(second: Floats, orientations: npt.NDArray[np.int64]) -> Floats:
    """Return pictures turned as their pairs say, [P, side, side, ...]; they are changed in place."""
    for number, (swap, down, across) in enumerate(ORIENTATIONS):
        rows = np.flatnonzero(orientations == number)
        turned = second[rows].swapaxes(1, 2) if swap else second[rows]
        turned = turned[:, ::-1] if down else turned
        second[rows] = turned[:, :, ::-1] if across else turned
    return second


def _steepest(grey: Floats) -> list[Floats]:
    """Return what small changes of the six numbers of an affine map do to pictures, [P, SIDE, SIDE] each."""
    down, across = np.gradient(grey, axis=(1, 2))
    down, across = down * _HALF, across * _HALF
    return [np.asarray(change, np.float32) for change in (across * _X, across * _Y, across, down * _X, down * _Y, down)]


def _after_one_step(first: Floats, second: Floats, windows: npt.NDArray[np.int64]) -> Floats:
    """Return the cosine of the frequencies of windows and pictures after the best small affine change, [P]."""

    down, across = _MATRICES[windows // len(CUTS)], _MATRICES[windows % len(CUTS)]
    seen = (down @ first @ across.swapaxes(1, 2))[:, _IS_USED] * _WEIGHTS
    seen /= np.maximum(np.linalg.norm(seen, axis=1, keepdims=True), 1e-6)
    whole = (_LINES @ second @ _LINES.T).reshape(len(second), -1)[:, _BLOCKS] * _WEIGHTS
    whole /= np.maximum(np.linalg.norm(whole[:, :1], axis=2, keepdims=True), 1e-6)
    other, changes = whole[:, 0], whole[:, 1:].swapaxes(1, 2)
    changes = changes - other[:, :, None] * (other[:, None] @ changes)
    along = (seen * other).sum(axis=1, keepdims=True)
    curvature = changes.swapaxes(1, 2) @ changes
    curvature[:, _SIX, _SIX] += 0.05
    step = np.linalg.solve(curvature, changes.swapaxes(1, 2) @ (seen - other * along)[:, :, None])
    fitted = other * along + (changes @ step)[:, :, 0]
    return np.asarray((seen * fitted).sum(axis=1) / np.maximum(np.linalg.norm(fitted, axis=1), 1e-6), np.float32)


def _registered_likeness(first: Floats, second: Floats, windows: npt.NDArray[np.int64]) -> Floats:
    """Return the likeness of pictures after registration, 0 where they do not show the same, [P]."""
    maps = _register(first, second, _maps_to(windows), _FEW_STEPS)
    laid, is_inside = _sample(first, maps)
    inside = is_inside.reshape(second.shape).astype(np.float32)
    local, weight = _local_correlation(laid.reshape(second.shape), second, inside, _RADIUS)
    so_far = (local * weight).sum(axis=(1, 2)) / np.maximum(weight.sum(axis=(1, 2)), 1e-6)
    rows = np.flatnonzero(so_far >= _LEAST_SO_FAR)
    likeness = np.zeros(len(first), np.float32)
    if len(rows):
        first, second = first[rows], second[rows]
        likeness[rows] = _laid_likeness(first, second, _register(first, second, maps[rows], _MORE_STEPS))
    return likeness


def _laid_likeness(first: Floats, second: Floats, maps: Floats) -> Floats:
    """Return the likeness of pictures under affine maps, 0 where they do not show the same, [P]."""
    laid, is_inside = _sample(first, maps)
    inside = is_inside.reshape(second.shape).astype(np.float32)
    laid = laid.reshape(second.shape)
    local, weight = _local_correlation(laid, second, inside, 1)
    unlike = ((local < _UNLIKE_BELOW) * weight).sum(axis=(1, 2)) / np.maximum(weight.sum(axis=(1, 2)), 1e-6)
    local, weight = _local_correlation(laid, second, inside, _RADIUS)
    total = weight.sum(axis=(1, 2))
    likeness = (local * weight).sum(axis=(1, 2)) / np.maximum(total, 1e-6)
    seen = total / (SIDE * SIDE)
    lowest, highest = _SCALES
    scales, shears, shifts = maps[:, [0, 1], [0, 1]], np.abs(maps[:, [0, 1], [1, 0]]), np.abs(maps[:, :2, 2])
    is_small = (
        ((scales > lowest) & (scales < highest)).all(axis=1)
        & (shears < _MOST_SHEAR).all(axis=1)
        & (shifts < _MOST_SHIFT).all(axis=1)
    )
    is_plain = _fine_seen(laid, second, inside) < _LEAST_FINE_SEEN * seen
    is_still = (np.abs(maps[:, :2] - np.eye(3)[:2]) < _STILL).all(axis=(1, 2))
    is_little = seen < _LEAST_SEEN
    is_like = likeness >= np.where(is_little | is_plain, _LIKENESS_OF_LITTLE, LEAST_LIKENESS)
    is_same = is_small & is_like & (unlike <= _MOST_UNLIKE) & (is_still | ~is_little)
    return np.where(is_same, likeness, 0).astype(np.float32)


def _fine_seen(one: Floats, other: Floats, inside: Floats) -> Floats:
    """Return the share of pictures with detail that is finer than a slope, [P]."""
    number = _box(inside, _RADIUS)
    is_core = number > (2 * _RADIUS + 1) ** 2 - 0.5
    core, number = is_core.astype(np.float32), np.maximum(number, 1e-6)
    fine = [(grey - _box(grey * inside, _RADIUS) / number) * core for grey in (one, other)]
    weight = _local_correlation(fine[0], fine[1], inside, 1)[1]
    return np.asarray(weight.sum(axis=(1, 2)) / np.maximum(is_core.sum(axis=(1, 2)), 1), np.float32)


def _maps_to(windows: npt.NDArray[np.int64]) -> Floats:
    """Return the maps to windows of the first pictures, [P, 3, 3], from -1 to 1."""
    maps = np.zeros((len(windows), 3, 3), np.float32)
    maps[:, 2, 2] = 1
    cuts = np.array(WINDOWS, np.float32)[windows]
    for axis, row in ((1, 0), (0, 1)):
        maps[:, row, row] = 1 - cuts[:, axis].sum(axis=1)
        maps[:, row, 2] = cuts[:, axis, 0] - cuts[:, axis, 1]
    return maps


def _register(first: Floats, second: Floats, maps: Floats, num_steps: int) -> Floats:
    """Return better affine maps from places in the second picture to places in the first, [P, 3, 3], -1 to 1."""
    number = len(first)
    flat = second.reshape(number, -1)
    everywhere = np.ones_like(flat)
    changes = np.stack(
        [change.reshape(number, -1) for change in _steepest(_standard(flat, everywhere).reshape(second.shape))], axis=2
    )
    for _ in range(num_steps):
        laid, is_inside = _sample(first, maps)
        inside = is_inside.astype(np.float32)
        error = _standard(laid, inside) - _standard(flat, inside)
        curvature = changes.swapaxes(1, 2) @ (changes * inside[:, :, None])
        curvature[:, _SIX, _SIX] += 1e-3 * (1 + np.trace(curvature, axis1=1, axis2=2)[:, None] / 6)
        step = np.linalg.solve(curvature, changes.swapaxes(1, 2) @ error[:, :, None])[:, :, 0]
        move = np.tile(np.eye(3, dtype=np.float32), (number, 1, 1))
        move[:, :2] += np.clip(step, -0.08, 0.08).reshape(number, 2, 3)
        maps = maps @ np.linalg.inv(move)
    return maps


def _sample(grey: Floats, maps: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return pictures where maps point to, bilinearly, and whether that is inside, [P, pixels] each."""
    import cv2  # here, since a manifest is read without it

    places = (maps[:, :2] @ _GRID) * np.float32(_HALF) + np.float32(_CENTRE)
    is_inside = np.asarray(((places >= -0.5) & (places <= SIDE - 0.5)).all(axis=1), np.bool_)
    x, y = (np.rint(np.clip(places, 0, SIDE - 1) * 32) / 32).swapaxes(0, 1)  # so that its row in the stack is no matter
    y += SIDE * np.arange(len(grey), dtype=np.float32)[:, None]
    stacked = (values.reshape(-1, SIDE) for values in (grey, x, y))
    laid = cv2.remap(*stacked, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return np.asarray(laid, np.float32).reshape(len(grey), -1), is_inside


def _standard(values: Floats, inside: Floats) -> Floats:
    """Return values with mean 0 and variance 1 over what is inside, 0 elsewhere."""
    number = np.maximum(inside.sum(axis=1, keepdims=True), 1)
    centred = (values - (values * inside).sum(axis=1, keepdims=True) / number) * inside
    return np.asarray(centred / np.maximum(np.sqrt((centred**2).sum(axis=1, keepdims=True) / number), 1e-3), np.float32)


def _local_correlation(one: Floats, other: Floats, inside: Floats, radius: int) -> tuple[Floats, Floats]:
    """Return the correlation around each pixel and its weight, from 0 where nothing is seen to 1, [P, SIDE, SIDE]."""
    number = np.maximum(_box(inside, radius), 1e-6)

    def mean(values: Floats) -> Floats:
        return np.asarray(_box(values * inside, radius) / number, np.float32)

    mean_one, mean_other = mean(one), mean(other)
    variance_one, variance_other = (
        np.maximum(mean(values**2) - average**2, 0) for values, average in ((one, mean_one), (other, mean_other))
    )
    common = mean(one * other) - mean_one * mean_other
    correlation = common / np.sqrt((variance_one + _FLOOR**2) * (variance_other + _FLOOR**2))
    largest = np.maximum(variance_one, variance_other)
    return correlation, largest / (largest + _MIDDLE**2) * inside


def _box(values: Floats, radius: int) -> Floats:
    """Return the sums over squares around each pixel, what lies outside counting as 0 with its own weight."""
    return np.asarray(_BANDS[radius] @ values @ _BANDS[radius])
