"""SUR batches in pytorch-metric-learning's trainer. `python examples/samplers_pml.py`

Its trainer starts the sampler anew each epoch without naming the epoch: its hook does.
"""

from __future__ import annotations

import torch
from pytorch_metric_learning import losses, trainers
from torch.utils.data import Dataset

from reid_cckd.samplers import SuperclassUniformSampler, build_superclasses


class Images(Dataset[tuple[torch.Tensor, int]]):
    """12 classes of 5 images; it notes which of them were asked for."""

    def __init__(self) -> None:
        self.labels = torch.arange(12).repeat_interleave(5)
        self.images = torch.nn.functional.one_hot(self.labels // 3) + 0.1 * torch.randn(60, 4)
        self.asked: list[int] = []

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        self.asked.append(index)
        return self.images[index], int(self.labels[index])

    def __len__(self) -> int:
        return len(self.labels)


def main() -> None:
    torch.manual_seed(0)
    data = Images()
    teacher = data.images  # stands for the embeddings of a teacher network
    found = build_superclasses(teacher, data.labels, num_superclasses=4)
    sampler = SuperclassUniformSampler(found.assignments, superclasses_per_batch=2, samples_per_superclass=4, seed=0)
    embed = torch.nn.Linear(4, 4)
    trainer = trainers.MetricLossOnly(
        models={"trunk": embed, "embedder": torch.nn.Identity()},
        optimizers={"trunk_optimizer": torch.optim.SGD(embed.parameters(), lr=0.1)},
        batch_size=None,  # the sampler knows
        loss_funcs={"metric_loss": losses.ContrastiveLoss()},
        dataset=data,
        sampler=sampler,
        dataloader_num_workers=0,
        end_of_epoch_hook=lambda trainer: sampler.set_epoch(trainer.epoch),  # PML counts from 1
    )
    trainer.train(num_epochs=2)
    print("superclasses", found.assignments.tolist())
    print("batches", [data.asked[start : start + 8] for start in range(0, len(data.asked), 8)])


if __name__ == "__main__":
    main()
