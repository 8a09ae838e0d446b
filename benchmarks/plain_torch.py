"""The plain-torch script that the service is measured against: one arm, as one writes it in an hour.

ImageFolder, torchvision's transforms, a DataLoader with worker processes, SGD with warm-up and cosine, bf16 or --fp32,
channels_last, validation each epoch, the best weights saved, the test set read once at the end; on a GPU pinned memory
and copies beside the work. Prints one JSON line: seconds to the first step, of each epoch, in all.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

START = time.perf_counter()  # before torch is imported: that is part of what a user waits for

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402
from torchvision import datasets, models, transforms  # noqa: E402

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def loaders(args: argparse.Namespace) -> dict[str, DataLoader[tuple[torch.Tensor, torch.Tensor]]]:
    tail = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    augment = transforms.Compose(
        [
            transforms.RandomResizedCrop(args.image_size),
            transforms.RandomHorizontalFlip(),
            transforms.RandomRotation(10),
            transforms.ColorJitter(0.2, 0.2, 0.2),
            *tail,
        ]
    )
    short_side = round(args.image_size * 256 / 224)
    fixed = transforms.Compose([transforms.Resize(short_side), transforms.CenterCrop(args.image_size), *tail])
    return {
        split: DataLoader(
            datasets.ImageFolder(args.data / split, augment if split == "train" else fixed),
            batch_size=args.batch_size,
            shuffle=split == "train",
            num_workers=args.num_workers,
            persistent_workers=args.num_workers > 0,
            pin_memory=args.device == "cuda",
        )
        for split in ("train", "val", "test")
    }


def build(args: argparse.Namespace, num_classes: int) -> nn.Module:
    model: nn.Module = models.get_model(args.arch)
    if args.weights:
        model.load_state_dict(torch.load(args.weights, weights_only=True))
    model.fc = nn.Linear(model.fc.in_features, num_classes)  # type: ignore[union-attr, arg-type]
    for name, parameter in model.named_parameters():
        parameter.requires_grad = args.strategy == "full" or name.startswith(("fc.", "layer4."))
    model.to(args.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # in place
    return model


def moved(images: torch.Tensor, labels: torch.Tensor, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    images = images.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
    return images, labels.to(device, non_blocking=True)


def correct(model: nn.Module, loader: DataLoader[tuple[torch.Tensor, torch.Tensor]], bf16: bool, device: str) -> float:
    model.eval()
    hits = total = 0
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=bf16):
        for batch in loader:
            images, labels = moved(batch[0], batch[1], device)
            hits += int((model(images).argmax(1) == labels).sum())
            total += len(labels)
    return hits / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train, val and test folders of classes")
    parser.add_argument("--strategy", default="last_layers", choices=("last_layers", "full"))
    parser.add_argument("--arch", default="resnet18", choices=("resnet18", "resnet50"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--weights", type=Path, help="state dict (.pth)")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--lr", type=float, default=0.03)
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--fp32", action="store_true", help="no bf16 autocast")
    args = parser.parse_args()
    torch.manual_seed(0)
    data = loaders(args)
    model = build(args, len(data["train"].dataset.classes))  # type: ignore[attr-defined]
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=args.lr, momentum=0.9, weight_decay=1e-4)
    num_steps = args.epochs * len(data["train"])
    warmup = max(1, num_steps // 10)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / warmup, 0.5 * (1 + math.cos(math.pi * s / num_steps)))
    )
    first_step, epochs, best = 0.0, [], -1.0
    for _ in range(args.epochs):
        began = time.perf_counter()
        model.train()
        for batch in data["train"]:
            images, labels = moved(batch[0], batch[1], args.device)
            with torch.autocast(args.device, torch.bfloat16, enabled=not args.fp32):
                loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(trained, 5.0)
            optimizer.step()
            scheduler.step()
            if not first_step:
                loss.item()  # a GPU works beside this process
                first_step = time.perf_counter() - START
        accuracy = correct(model, data["val"], not args.fp32, args.device)
        if accuracy > best:
            best = accuracy
            torch.save(model.state_dict(), args.data / ".plain_torch_best.pth")
        epochs.append(time.perf_counter() - began)
    model.load_state_dict(torch.load(args.data / ".plain_torch_best.pth", weights_only=True))
    test = correct(model, data["test"], not args.fp32, args.device)
    seconds = time.perf_counter() - START
    print(json.dumps({"first_step_s": first_step, "epochs_s": epochs, "seconds": seconds, "val": best, "test": test}))


if __name__ == "__main__":
    main()
