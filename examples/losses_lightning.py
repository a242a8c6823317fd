"""Distillation under Lightning on two processes. `python examples/losses_lightning.py`

Each process has half of the batch. The rows of both are gathered, with gradients, before the loss: pairs of an image
here and an image there count as any others, so the run is that of one process with whole batches.
"""

from __future__ import annotations

import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

from reid_cckd.losses import CorrelationCongruenceLoss, CosineMimic, gather_rows


class Distillation(lightning.LightningModule):
    """A linear student of a teacher that is linear too."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = torch.nn.Linear(16, 8).requires_grad_(False)
        self.student = torch.nn.Linear(16, 8)
        self.mimic, self.correlation = CosineMimic(), CorrelationCongruenceLoss()
        self.seen: dict[str, float] = {}

    def train_dataloader(self) -> DataLoader:
        images = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
        labels = torch.arange(64) % 8
        return DataLoader(TensorDataset(images, labels), batch_size=16)  # Lightning deals it out

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        images, labels = batch
        student, labels = gather_rows(self.student(images)), gather_rows(labels)
        teacher = gather_rows(self.teacher(images))
        terms = {
            "mimic": self.mimic(student, ref_emb=teacher),
            "correlation": self.correlation(student, labels, ref_emb=teacher),
        }
        self.seen = {name: float(value.detach()) for name, value in terms.items()}
        return terms["mimic"] + 50.0 * terms["correlation"]

    def on_train_epoch_end(self) -> None:
        if self.global_rank == 0:
            values = " ".join(f"{name} {value:.5f}" for name, value in self.seen.items())
            print(f"epoch {self.current_epoch} {values}", flush=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.student.parameters(), lr=0.02)


def main() -> None:
    torch.manual_seed(0)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=20,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Distillation())


if __name__ == "__main__":
    main()
