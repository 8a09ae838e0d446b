"""Pixels from draws: one affine sampling an image, then the steps on its values. OpenCV, 8 bit, one thread.

Why OpenCV: `docs/decisions/0002-pixel-engine.md`. What an image becomes depends on its own pixels and its own row
of the draws, never on its neighbours or on the thread that renders it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from transferlib.data.draws import STEPS, Draws, Pass

Image = cv2.typing.MatLike
"""uint8 [H, W, 3] RGB (OpenCV's annotations know no narrower type)."""
Matrix = NDArray[np.float64]
Sheets = NDArray[np.float32]
"""[2, 3 H W] room to compute in, kept over a batch: fresh memory costs more than what is computed in it."""

_SAME: Matrix = np.eye(3, 4)
_GREY: Matrix = np.array([[0.2989, 0.587, 0.114, 0.0]] * 3)
"""The weights of red, green, blue in a grey value. Source: torchvision's `rgb_to_grayscale`."""
_NO_SOFTENING = 0.005
"""Variance under which a low-pass before sampling changes nothing that 8 bits could show, pixels squared."""


def render(images: Sequence[NDArray[np.uint8]], draws: Draws, image_size: int) -> NDArray[np.uint8]:
    """Return the images after all passes of their draws.

    Args:
        images: B arrays uint8 [H, W, 3], RGB; never written to.
        draws: Their draws, made for their sizes.
        image_size: Side S of the result, pixels.

    Returns:
        uint8 [B, S, S, 3].
    """
    if len(images) != len(draws):
        raise ValueError(f"{len(images)} images and draws for {len(draws)}; there must be one row an image")
    # The stream renders in many tasks at once: OpenCV's own pool would only get in their way. 1: no pool at all.
    if cv2.getNumThreads() != 1:
        cv2.setNumThreads(1)
    out = np.empty((len(images), image_size, image_size, 3), np.uint8)
    largest = max((int(part.sizes.prod(1).max()) for part in draws.passes), default=0)
    sheets = np.empty((2, 3 * largest), np.float32)
    for index, source in enumerate(images):
        image: Image = source
        for part in draws.passes:
            image = _apply_steps(_sample(image, part, index, sheets), part, index, sheets)
        out[index] = image
    return out


def _sample(image: Image, part: Pass, index: int, sheets: Sheets) -> Image:
    top, left, height, width = part.boxes[index].tolist()
    out_height, out_width = part.sizes[index].tolist()
    matrix = part.matrices[index]
    box = _soften(image[top : top + height, left : left + width], *part.softening[index].tolist())
    sampled = _mirrored(box, matrix, out_height, out_width)
    if sampled is None:
        # Through four channels: the same bytes in half the time, 135 against 262 µs at 224 px (OpenCV 5.0).
        sampled = cv2.warpAffine(
            cv2.cvtColor(box, cv2.COLOR_RGB2RGBA),
            matrix,
            (out_width, out_height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        sampled = cv2.cvtColor(sampled, cv2.COLOR_RGBA2RGB)
    for frame, size, fill in zip(part.frames[index], part.frame_sizes[index].tolist(), part.fills[index], strict=True):
        sampled = _fill_outside(sampled, frame, size, fill, sheets)
    return sampled


def _mirrored(box: Image, matrix: Matrix, height: int, width: int) -> Image | None:
    """Return a part of the box as it is or mirrored, where that is all the sampling does."""
    (a, b, c), (d, e, f) = matrix.tolist()
    if b or d or abs(a) != 1 or abs(e) != 1 or c % 1 or f % 1:
        return None
    left, top = int(min(c, c + a * (width - 1))), int(min(f, f + e * (height - 1)))
    if left < 0 or top < 0 or left + width > box.shape[1] or top + height > box.shape[0]:
        return None
    part = box[top : top + height, left : left + width]
    if (a, e) == (1, 1):
        return part
    return cv2.flip(part, {(-1, 1): 1, (1, -1): 0, (-1, -1): -1}[(a, e)])


def _soften(box: Image, variance_x: float, variance_y: float) -> Image:
    if max(variance_x, variance_y) < _NO_SOFTENING:
        return box
    (taps_x, sigma_x), (taps_y, sigma_y) = _low_pass(variance_x), _low_pass(variance_y)
    return cv2.GaussianBlur(box, (taps_x, taps_y), sigma_x, sigmaY=sigma_y)


def _low_pass(variance: float) -> tuple[int, float]:
    """Return the taps and sigma of a Gaussian kernel that has the variance once it is cut to its taps."""
    if variance < _NO_SOFTENING:
        return 1, 1.0
    if variance < 0.5:
        side = variance / 2  # of three taps (side, 1 - 2 side, side)
        return 3, math.sqrt(-0.5 / math.log(side / (1 - 2 * side)))
    sigma = math.sqrt(variance)
    return 2 * math.ceil(3 * sigma) + 1, sigma


def _fill_outside(image: Image, frame: Matrix, size: Sequence[int], fill: NDArray[np.uint8], sheets: Sheets) -> Image:
    """Return the image with what lies outside of the frame filled; within one frame pixel of its edge, blended."""
    height, width = image.shape[:2]
    half = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    centred = frame - np.array([[0, 0, half[0]], [0, 0, half[1]]])
    corners = np.array([[0, width - 1, 0, width - 1], [0, 0, height - 1, height - 1], [1, 1, 1, 1]])
    if (np.abs(centred @ corners) <= half[:, None] + 1e-6).all():
        return image
    # How far each pixel lies beyond the frame's outermost pixel centres. 0 or less: inside; 1: wholly outside, as
    # bilinear sampling of a filled border has it.
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    beyond_x, beyond_y = (sheet[: height * width].reshape(height, width) for sheet in sheets)
    for beyond, (a, b, c), reach in zip((beyond_x, beyond_y), centred.astype(np.float32), half, strict=True):
        np.add(a * x, b * y + c, out=beyond)
        np.abs(beyond, out=beyond)
        if half[0] != half[1]:
            beyond -= np.float32(reach - half.min())
    beyond = np.maximum(beyond_x, beyond_y, out=beyond_x).ravel()
    outside = np.flatnonzero(beyond > np.float32(half.min()))
    share = np.minimum(beyond.take(outside) - np.float32(half.min()), 1)
    blended = np.empty((len(outside), 3), np.uint8)
    blended[:] = fill
    edge = np.flatnonzero(share < 1)
    filled = image.copy()
    pixels = filled.reshape(-1, 3)
    kept = pixels.take(outside.take(edge), axis=0).astype(np.float32)
    blended[edge] = np.rint(kept + share.take(edge)[:, None] * (fill - kept))
    # As elements of three bytes: numpy scatters those several times faster than rows of three.
    pixels.view("V3")[outside] = blended.view("V3")
    return filled


def _apply_steps(image: Image, part: Pass, index: int, sheets: Sheets) -> Image:
    """Apply the steps in order; neighbouring 3x4 colour matrices are one where nothing can be clipped between them."""
    pending: Matrix | None = None
    for code, values in zip(part.codes[index].tolist(), part.values[index].tolist(), strict=True):
        name = STEPS[code]
        if name == "unchanged":
            continue
        if pending is not None and not _can_fold(pending, name, values[0]):
            image, pending = cv2.transform(image, pending), None
        if name in _COLOR_MATRICES:
            matrix = _COLOR_MATRICES[name](values[0], image, pending)
            pending = matrix if pending is None else _fold(matrix, pending)
        else:
            image = _OTHER_STEPS[name](image, values, sheets)
    return image if pending is None else cv2.transform(image, pending)


def _can_fold(pending: Matrix, name: str, factor: float) -> bool:
    if name not in _COLOR_MATRICES:
        return False
    if name == "adjust_brightness" and factor >= 1:
        return True  # what is out of range before lies as far out after
    reach = pending[:, :3] * 255
    lowest, highest = np.minimum(reach, 0).sum(1) + pending[:, 3], np.maximum(reach, 0).sum(1) + pending[:, 3]
    return bool((lowest > -0.5).all() and (highest < 255.5).all())


def _fold(outer: Matrix, inner: Matrix) -> Matrix:
    folded: Matrix = outer[:, :3] @ inner
    folded[:, 3] += outer[:, 3]
    return folded


def _brightness(factor: float, image: Image, pending: Matrix | None) -> Matrix:
    return factor * _SAME


def _contrast(factor: float, image: Image, pending: Matrix | None) -> Matrix:
    mean = np.array([*cv2.mean(image)[:3], 1.0])
    grey = _GREY[0] @ mean if pending is None else _GREY[0, :3] @ (pending @ mean)
    matrix = factor * _SAME
    matrix[:, 3] = (1 - factor) * grey
    return matrix


def _saturation(factor: float, image: Image, pending: Matrix | None) -> Matrix:
    return factor * _SAME + (1 - factor) * _GREY


def _greyscale(factor: float, image: Image, pending: Matrix | None) -> Matrix:
    return _GREY


def _hue(image: Image, values: list[float], sheets: Sheets) -> Image:
    # In floats: 8-bit hue has steps of up to 6 grey levels. OpenCV brings degrees over 360 round, not those under 0.
    rgb, hsv = (sheet[: image.size].reshape(image.shape) for sheet in sheets)
    np.copyto(rgb, image)
    cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV, dst=hsv)
    hsv[..., 0] += np.float32(values[0] % 1 * 360)
    cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=rgb)
    shifted: Image = cv2.convertScaleAbs(rgb)
    return shifted


def _blur(image: Image, values: list[float], sheets: Sheets) -> Image:
    taps = (int(values[0]), int(values[1]))
    return cv2.GaussianBlur(image, taps, values[2], sigmaY=values[3], borderType=cv2.BORDER_REFLECT_101)


def _erase(image: Image, values: list[float], sheets: Sheets) -> Image:
    top, left, height, width = map(int, values[:4])
    erased = image.copy()
    erased[top : top + height, left : left + width] = values[4:7]
    return erased


_COLOR_MATRICES: dict[str, Callable[[float, Image, Matrix | None], Matrix]] = {
    "adjust_brightness": _brightness,
    "adjust_contrast": _contrast,
    "adjust_saturation": _saturation,
    "rgb_to_grayscale": _greyscale,
}
"""The 3x4 matrix of a step, from its factor and the image (as it will be after the pending matrix)."""
_OTHER_STEPS: dict[str, Callable[[Image, list[float], Sheets], Image]] = {
    "adjust_hue": _hue,
    "gaussian_blur": _blur,
    "erase": _erase,
}
