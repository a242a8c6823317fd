"""CUR batches under Lightning on two processes. `python examples/samplers_lightning.py`

Lightning wraps samplers to make them distributed unless it is told that they are; it calls `set_epoch` by itself.
"""

from __future__ import annotations

import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

from reid_cckd.samplers import ClassUniformSampler


class Task(lightning.LightningModule):
    """A linear embedding; every process notes what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(8, 4)
        self.seen: list[list[int]] = []

    def train_dataloader(self) -> DataLoader:
        labels = torch.arange(12).repeat_interleave(5)  # 12 classes of 5 images
        images = torch.randn(60, 8)
        sampler = ClassUniformSampler(
            labels, 4, 2, seed=0, rank=self.trainer.global_rank, world_size=self.trainer.world_size
        )
        return DataLoader(TensorDataset(images, labels, torch.arange(60)), batch_sampler=sampler)

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        images, _labels, index = batch
        self.seen.append(index.tolist())
        return self.embed(images).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def main() -> None:
    task = Task()
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=2,
        use_distributed_sampler=False,  # the sampler has its own rank
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task)
    print(f"rank {trainer.global_rank} {task.seen}", flush=True)


if __name__ == "__main__":
    main()
