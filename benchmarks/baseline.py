"""A plain PyTorch script: the article's network in fp32, a DataLoader whose worker processes augment one image at a time.

`python benchmarks/ablation.py engine --recipe davidnet` compares its steps with SprintNet's, whose kernels it switches off
here: the network's layers would take them.
"""

import time

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from sprintnet.config import load_config
from sprintnet.data.builtin import cache
from sprintnet.models.factory import build_model


class AugmentedCifar10(Dataset[tuple[torch.Tensor, int]]):
    """CIFAR-10's training images: padded by 4 and cropped, flipped with probability 1/2, 8x8 cutout, normalised."""

    def __init__(self) -> None:
        self.dataset, _ = cache.load("cifar10")

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        generator = np.random.default_rng()
        image = np.pad(self.dataset.images[index], ((4, 4), (4, 4), (0, 0)))
        top, left = generator.integers(0, 9, 2)
        image = image[top : top + 32, left : left + 32]
        if generator.random() < 0.5:
            image = image[:, ::-1]
        pixels = (image.astype(np.float32) / 255 - (0.4914, 0.4822, 0.4465)) / (0.2470, 0.2435, 0.2616)
        row, column = generator.integers(0, 32, 2)
        pixels[max(0, row - 4) : row + 4, max(0, column - 4) : column + 4] = 0
        return torch.from_numpy(pixels.astype(np.float32).transpose(2, 0, 1).copy()), int(self.dataset.labels[index])


def training_steps(count: int) -> tuple[int, list[float]]:
    """Returns the batch size and the seconds of `count` training steps, after a first one that starts the workers."""
    config = load_config("davidnet")
    model = build_model(config.model, 10, (32, 32, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    loss_function = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
    laps, last = [], 0.0
    for images, labels in DataLoader(AugmentedCifar10(), config.batch_size, shuffle=True, num_workers=2):
        optimizer.zero_grad()
        loss_function(model(images), labels).backward()
        optimizer.step()
        laps.append(time.perf_counter() - last)
        last = time.perf_counter()
        if len(laps) > count:
            break
    return config.batch_size, laps[1:]
