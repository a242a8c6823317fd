"""CUR batches in a plain PyTorch loop that is interrupted and goes on. `python examples/samplers_plain.py`"""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, TensorDataset

from reid_cckd.samplers import ClassUniformSampler


def main() -> None:
    labels = torch.arange(12).repeat_interleave(5)  # 12 classes of 5 images
    images = torch.randn(60, 8)
    dataset = TensorDataset(images, labels, torch.arange(60))

    sampler = ClassUniformSampler(labels, classes_per_batch=4, samples_per_class=2, seed=0)
    loader = DataLoader(dataset, batch_sampler=sampler, num_workers=2)
    steps = train(loader, sampler, stop_after=11)  # the power fails in the second epoch

    # The workers had asked for batches ahead; what counts is how many the loop has used.
    state = sampler.state_dict(batches=11 - len(sampler))

    sampler = ClassUniformSampler(labels, classes_per_batch=4, samples_per_class=2, seed=0)
    sampler.load_state_dict(state)
    steps += train(DataLoader(dataset, batch_sampler=sampler, num_workers=2), sampler)
    print("batches", steps)


def train(loader: DataLoader, sampler: ClassUniformSampler, stop_after: int | None = None) -> list[list[int]]:
    """Run to the end of epoch 3, or until the interruption; the indices of every batch."""
    steps: list[list[int]] = []
    for epoch in range(sampler.epoch, 3):
        sampler.set_epoch(epoch)
        for _images, _labels, index in loader:
            steps.append(index.tolist())  # forward, backward, step
            if len(steps) == stop_after:
                return steps
    return steps


if __name__ == "__main__":
    main()
