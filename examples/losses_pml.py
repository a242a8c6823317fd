"""Distillation in a plain pytorch-metric-learning script. `python examples/losses_pml.py`

Triplets of a miner teach the classes, the mimic where the teacher puts each image, the correlation how it relates any
two. Correlation alone would leave the student's space rotated against the teacher's.
"""

from __future__ import annotations

import torch
from pytorch_metric_learning import losses, miners
from torch.utils.data import DataLoader, TensorDataset

from reid_cckd.losses import CorrelationCongruenceLoss, CosineMimic, GaussianRBF
from reid_cckd.samplers import ClassUniformSampler


def data() -> TensorDataset:
    """12 classes of 5 images, and what a teacher's network made of each."""
    labels = torch.arange(12).repeat_interleave(5)
    teacher = torch.randn(12, 16)[labels] + 0.3 * torch.randn(60, 16)
    images = teacher @ torch.randn(16, 32) + 0.3 * torch.randn(60, 32)
    return TensorDataset(images, labels, teacher)


def main() -> None:
    torch.manual_seed(0)
    dataset = data()
    sampler = ClassUniformSampler(dataset.tensors[1], classes_per_batch=8, samples_per_class=4, seed=0)
    loader = DataLoader(dataset, batch_sampler=sampler)

    student = torch.nn.Linear(32, 16)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    triplet, miner = losses.TripletMarginLoss(margin=0.3), miners.BatchHardMiner()
    mimic, correlation = CosineMimic(), CorrelationCongruenceLoss(distance=GaussianRBF(gamma=0.4, order=2))

    for epoch in range(20):
        sampler.set_epoch(epoch)
        for images, labels, teacher in loader:
            embeddings = student(images)
            terms = {
                "triplet": triplet(embeddings, labels, miner(embeddings, labels)),
                "mimic": mimic(embeddings, ref_emb=teacher),
                "correlation": correlation(embeddings, labels, ref_emb=teacher),  # PML's call, the teacher as ref_emb
            }
            loss = terms["triplet"] + 1.0 * terms["mimic"] + 50.0 * terms["correlation"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}", *(f"{name} {float(value.detach()):.5f}" for name, value in terms.items()))


if __name__ == "__main__":
    main()
