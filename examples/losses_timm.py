"""Distillation as a task of timm, which returns a dict of losses. `python examples/losses_timm.py`

`Objective` weighs named terms and returns them all; what timm's training script asks of a task is that dict and the
student's scores. timm's own distillation tasks fit beside it: they, too, are called with images and targets.
"""

from __future__ import annotations

import timm
import torch
from timm.task import TrainingTask
from torch import Tensor, nn

from reid_cckd.batch import Output
from reid_cckd.losses import CorrelationCongruenceLoss, CrossEntropy, HintonKD, Objective, Term


class CorrelationTask(TrainingTask):
    """L = alpha CE + (1 - alpha) KD + beta CC, of two timm models with the same classes."""

    def __init__(self, student: nn.Module, teacher: nn.Module, alpha: float, beta: float) -> None:
        super().__init__(verbose=False)
        self.trainable_module = student
        self.teacher = teacher.requires_grad_(False)
        self.objective = Objective(
            [
                Term("ce", CrossEntropy(), alpha),
                Term("kd", HintonKD(temperature=4.0), 1 - alpha),
                Term("cc", CorrelationCongruenceLoss(), beta),
            ]
        )

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        student = outputs(self.trainable_module, input)
        with torch.no_grad():
            teacher = outputs(self.teacher.eval(), input)  # task.train() has put it into train mode
        return {**self.objective(student, target, teacher), "output": student.logits}


def outputs(model: nn.Module, images: Tensor) -> Output:
    """Embedding and scores in one pass of a timm model."""
    maps = model.forward_features(images)
    embedding = model.forward_head(maps, pre_logits=True)
    return Output(embedding, embedding, model.get_classifier()(embedding), maps)


def main() -> None:
    torch.manual_seed(0)
    options = {"channels": [8, 8, 16, 16], "stem_width": 8, "num_classes": 6}
    student, teacher = timm.create_model("resnet10t", **options), timm.create_model("resnet14t", **options)
    task = CorrelationTask(student, teacher, alpha=0.5, beta=50.0)
    optimizer = torch.optim.AdamW(task.trainable_module.parameters(), lr=0.003)
    images, labels = torch.randn(24, 3, 32, 32), torch.arange(24) % 6
    for epoch in range(20):
        result = task(images, labels)
        optimizer.zero_grad()
        result["loss"].backward()
        optimizer.step()
        result.pop("output")
        print(f"epoch {epoch}", *(f"{name} {float(value.detach()):.5f}" for name, value in result.items()))


if __name__ == "__main__":
    main()
