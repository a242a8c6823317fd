"""CUR batches under accelerate. `torchrun --standalone --nproc-per-node 2 examples/samplers_accelerate.py`

accelerate deals the batches of one sampler out to its processes, which is what our own ranks do: so leave rank and
world_size at their defaults here. It calls `set_epoch` by itself.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

from reid_cckd.samplers import ClassUniformSampler


def main() -> None:
    labels = torch.arange(12).repeat_interleave(5)  # 12 classes of 5 images
    images = torch.randn(60, 8)
    sampler = ClassUniformSampler(labels, classes_per_batch=4, samples_per_class=2, seed=0)
    loader = DataLoader(TensorDataset(images, labels, torch.arange(60)), batch_sampler=sampler)

    accelerator = Accelerator(cpu=True)
    embed = torch.nn.Linear(8, 4)
    embed, optimizer, loader = accelerator.prepare(embed, torch.optim.SGD(embed.parameters(), lr=0.1), loader)
    seen = []
    for _epoch in range(2):
        for image, _label, index in loader:
            seen.append(index.tolist())
            accelerator.backward(embed(image).square().mean())
            optimizer.step()
            optimizer.zero_grad()
    print(f"rank {accelerator.process_index} {seen}", flush=True)
    accelerator.end_training()


if __name__ == "__main__":
    main()
