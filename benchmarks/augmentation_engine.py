"""Measure ways to compute augmented pixels from decoded uint8 images, in one interleaved run.

    python benchmarks/augmentation_engine.py --processes 2

Ways:
  torchvision   torchvision's own v2 transforms on uint8 tensors, image by image
  torch         our draws, in torch: grid_sample, then 1x1 convolutions as colour matrices, image by image
  opencv        our draws, as `transferlib.data.pixels` renders them

Each round runs every way once, in every process at the same time, over the same images; a way's figure is the median
over rounds. Wall time says what a machine delivers; CPU time is steadier where other programs run beside. Draws are
part of what is measured.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, cast

import cv2
import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torchvision.transforms import v2

from transferlib.data.augment import PRESETS, Augmentation, evaluation_short_side, render
from transferlib.data.draws import STEPS, Pass

Images = list[NDArray[np.uint8]]
Way = Callable[[Images, int], NDArray[np.uint8]]
GREY = torch.tensor([0.2989, 0.587, 0.114])
_state: dict[str, Any] = {}


def photographs(count: int, short_side: int) -> Images:
    """Return images of photograph-like smoothness, with short side `short_side` and aspect 1 to 1.5."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(count):
        height, width = short_side, int(short_side * rng.uniform(1, 1.5))
        sums = sum(
            weight * cv2.resize(rng.standard_normal((side, side, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
            for side, weight in ((3, 70), (9, 35), (40, 15), (120, 6))
        )
        image = np.clip(128 + cast("NDArray[np.float64]", sums), 0, 255).astype(np.uint8)
        images.append(np.ascontiguousarray(image if rng.random() < 0.7 else image.transpose(1, 0, 2)))
    return images


def opencv_way(augmentation: Augmentation) -> Way:
    def run(images: Images, epoch: int) -> NDArray[np.uint8]:
        keys, sizes = np.arange(len(images)).astype(np.uint64), np.array([image.shape[:2] for image in images])
        return render(images, augmentation.draw(0, epoch, keys, sizes), augmentation.image_size)

    return run


def torchvision_way(preset: str, image_size: int) -> Way:
    bilinear = v2.InterpolationMode.BILINEAR
    options: dict[str, dict[str, Any]] = {
        "RandomResizedCrop": {"size": image_size},
        "RandomRotation": {"interpolation": bilinear},
        "RandomAffine": {"interpolation": bilinear},
    }
    steps = [
        getattr(v2, name)(**(dict(parameters or {}) | options.get(name, {})))
        for step in PRESETS[preset]
        for name, parameters in step.items()
    ]
    transform = v2.Compose(steps)

    def run(images: Images, epoch: int) -> NDArray[np.uint8]:
        torch.manual_seed(epoch)
        pixels = torch.stack([transform(torch.from_numpy(image).permute(2, 0, 1)) for image in images])
        return cast("NDArray[np.uint8]", pixels.permute(0, 2, 3, 1).contiguous().numpy())

    return run


def torch_way(augmentation: Augmentation) -> Way:
    side = torch.arange(float(augmentation.image_size))
    y, x = torch.meshgrid(side, side, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], dim=-1).view(-1, 3)

    def run(images: Images, epoch: int) -> NDArray[np.uint8]:
        keys, sizes = np.arange(len(images)).astype(np.uint64), np.array([image.shape[:2] for image in images])
        (part,) = augmentation.draw(0, epoch, keys, sizes).passes
        out = torch.empty(len(images), 3, len(side), len(side), dtype=torch.uint8)
        for n, image in enumerate(images):
            out[n] = color(sample(image, part, n, places), part, n).round_()[0]
        return cast("NDArray[np.uint8]", out.permute(0, 2, 3, 1).contiguous().numpy())

    return run


def sample(image: NDArray[np.uint8], part: Pass, n: int, places: torch.Tensor) -> torch.Tensor:
    """Return image n's sampling as torch computes it, float32 [1, 3, S, S], corners filled with black."""
    top, left, height, width = part.boxes[n].tolist()
    shape = (1, *part.sizes[n].tolist())
    box = torch.from_numpy(image[top : top + height, left : left + width]).permute(2, 0, 1)[None].float()
    matrix = part.matrices[n] * (2 / np.array([[width], [height]]))
    matrix[:, 2] += 1 / np.array([width, height]) - 1
    grid = (places @ torch.from_numpy(matrix.T).float()).view(*shape, 2)
    sampled = torch.nn.functional.grid_sample(box, grid, padding_mode="border", align_corners=False)
    for frame, size in zip(part.frames[n], part.frame_sizes[n], strict=True):
        reach = (float(size[0]) - 1) / 2
        centred = frame - np.array([[0, 0, reach], [0, 0, reach]])
        beyond = (places @ torch.from_numpy(centred.T).float()).abs_().sub_(reach).amax(dim=1)
        sampled.mul_(1 - beyond.clamp_(0, 1).view(shape))
    return sampled


def color(pixels: torch.Tensor, part: Pass, n: int) -> torch.Tensor:
    """Return image n, float32 [1, 3, S, S], after brightness, contrast and saturation in its own order."""
    for code, (factor, *_) in zip(part.codes[n], part.values[n].tolist(), strict=True):
        matrix, offset = factor * torch.eye(3), torch.zeros(3)
        if STEPS[code] == "adjust_contrast":
            offset += (1 - factor) * (pixels.mean(dim=(0, 2, 3)) @ GREY)
        if STEPS[code] == "adjust_saturation":
            matrix += (1 - factor) * GREY
        pixels = torch.nn.functional.conv2d(pixels, matrix[:, :, None, None], offset).clamp_(0, 255)
    return pixels


def _start(preset: str, image_size: int, num_images: int) -> None:
    torch.set_num_threads(1)
    augmentation = Augmentation.from_spec(preset, image_size)
    _state["images"] = photographs(num_images, evaluation_short_side(image_size))
    _state["ways"] = {"torchvision": torchvision_way(preset, image_size), "opencv": opencv_way(augmentation)}
    if preset == "standard":
        _state["ways"]["torch"] = torch_way(augmentation)


def _measure(name: str, epoch: int) -> tuple[float, float]:
    """Return CPU and wall seconds of one way over all images in this process."""
    cpu, wall = time.process_time(), time.perf_counter()
    _state["ways"][name](_state["images"], epoch)
    return time.process_time() - cpu, time.perf_counter() - wall


def _agreement() -> float:
    """Return the PSNR between the two engines on the same draws, decibels."""
    a, b = (_state["ways"][name](_state["images"], 0).astype(np.float64) for name in ("torch", "opencv"))
    return float(10 * np.log10(255**2 / np.mean((a - b) ** 2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=["standard", "strong"], default="standard", help="augmentation preset")
    parser.add_argument("--image-size", type=int, default=224, help="side of the result, pixels (default 224)")
    parser.add_argument("--images", type=int, default=64, help="images a round and process (default 64)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds, after one to warm up (default 9)")
    parser.add_argument("--processes", type=int, default=2, help="processes side by side (default 2)")
    options = parser.parse_args()
    start = (options.preset, options.image_size, options.images)
    _start(*start)
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in _state["ways"]}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, mp_context=spawn, initializer=_start, initargs=start) as pool:
        for round_number in range(options.rounds + 1):
            for name in rates:
                runs = list(pool.map(_measure, [name] * options.processes, [round_number] * options.processes))
                total = options.images * options.processes
                if round_number:
                    rates[name].append((total / sum(cpu for cpu, _ in runs), total / max(wall for _, wall in runs)))
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; ", end=""
    )
    print(f"OpenCV {cv2.__version__}, torch {torch.__version__}, torchvision {torchvision.__version__}")
    print(f"{options.preset}, {options.image_size} px, {options.processes} processes, {options.rounds} rounds", end="")
    print(f"; torch and opencv agree to {_agreement():.1f} dB\n" if "torch" in rates else "\n")
    print("| way | images/s (wall, all processes) | images per CPU second | times torchvision (CPU) |")
    print("|---|---|---|---|")
    base = statistics.median(cpu for cpu, _ in rates["torchvision"])
    for name, pairs in rates.items():
        cpu = statistics.median(c for c, _ in pairs)
        walls = sorted(w for _, w in pairs)
        spread = f"{statistics.median(walls):,.0f} ({walls[0]:,.0f} to {walls[-1]:,.0f})"
        print(f"| {name} | {spread} | {cpu:,.0f} | {cpu / base:.1f} |")


if __name__ == "__main__":
    main()
