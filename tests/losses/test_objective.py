"""The objective: weights and their schedules, what each loss is handed, and how hard each one pulls."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner
from torch import Tensor, nn

from reid_cckd.batch import Output
from reid_cckd.losses import (
    CRD,
    AdaDistill,
    AttentionTransfer,
    CorrelationCongruenceLoss,
    CosineMimic,
    CrossEntropy,
    EmbeddingMimic,
    HintonKD,
    Objective,
    PairMemory,
    Ramp,
    Term,
)

LABELS = torch.arange(6) % 3


def output(seed: int, scale: float = 1.0) -> Output:
    """Neck and scores hang on the embedding, as they do in a network."""
    generator = torch.Generator().manual_seed(seed)
    embedding = (scale * torch.randn(6, 4, dtype=torch.float64, generator=generator)).requires_grad_()
    neck = 2 * embedding
    return Output(embedding, neck, neck @ torch.randn(4, 3, dtype=torch.float64, generator=generator), None)


@pytest.mark.parametrize(
    ("ramp", "weights"),
    [
        (Ramp(0, 10), [0, 2.5, 5, 7.5, 10]),
        (Ramp(10, 0), [10, 7.5, 5, 2.5, 0]),
        (Ramp(2, 10, begin=0.25, end=0.75), [2, 2, 6, 10, 10]),
        (Ramp(0, 10, shape="cosine"), [0, 5 * (1 - math.sqrt(0.5)), 5, 5 * (1 + math.sqrt(0.5)), 10]),
        (Ramp(4, 4, shape="cosine"), [4, 4, 4, 4, 4]),
        (3.0, [3, 3, 3, 3, 3]),
    ],
    ids=str,
)
def test_weights_follow_their_schedule(ramp: Ramp | float, weights: list[float]) -> None:
    objective = Objective([Term("mimic", CosineMimic(), ramp, needs_teacher=True)])
    found = [objective.weights(progress)["mimic"] for progress in (0, 0.25, 0.5, 0.75, 1)]
    assert found == pytest.approx(weights)


@pytest.mark.parametrize(("begin", "end"), [(0.5, 0.5), (0.6, 0.2), (-0.1, 1), (0, 1.1), (math.nan, 1)])
def test_a_ramp_lies_within_the_training(begin: float, end: float) -> None:
    with pytest.raises(ValueError, match="begin and end"):
        Ramp(0, 1, begin, end)


def test_a_balance_that_fails_leaves_the_losses_in_training_mode() -> None:
    objective = Objective([Term("cc", CorrelationCongruenceLoss(memory=PairMemory(9)))])
    with pytest.raises(ValueError, match="none was given"):
        objective.balance(output(0), LABELS)
    assert all(module.training for module in objective.modules())


@pytest.mark.parametrize("options", [{"shape": "quadratic"}, {"start": math.nan}, {"stop": math.inf}])
def test_a_ramp_that_makes_no_sense_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^(shape|start and stop):"):
        Ramp(**{"start": 0.0, "stop": 1.0, **options})


@pytest.mark.parametrize(("named", "options"), [("on", {"on": "logit"}), ("weight", {"weight": math.nan})])
def test_a_term_that_makes_no_sense_is_named(named: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{named} of term 'ce'"):
        Term("ce", CrossEntropy(), **options)


def test_a_loss_says_where_it_looks_and_whether_it_needs_a_teacher() -> None:
    student, teacher = output(0), output(1)
    losses = {"ce": CrossEntropy(), "kd": HintonKD(), "cc": CorrelationCongruenceLoss(), "triplet": TripletMarginLoss()}
    values = Objective([Term(name, loss) for name, loss in losses.items()])(student, LABELS, teacher)
    torch.testing.assert_close(values["ce"], CrossEntropy()(student.logits, LABELS))
    torch.testing.assert_close(values["kd"], HintonKD()(student.logits, ref_emb=teacher.logits))
    torch.testing.assert_close(values["cc"], CorrelationCongruenceLoss()(student.embedding, ref_emb=teacher.embedding))
    torch.testing.assert_close(values["triplet"], TripletMarginLoss()(student.embedding, LABELS))
    told = Objective([Term("kd", HintonKD(), on="neck")])(student, LABELS, teacher)["kd"]
    torch.testing.assert_close(told, HintonKD()(student.neck, ref_emb=teacher.neck))


def test_the_loss_is_the_weighted_sum_and_every_term_is_reported() -> None:
    student, teacher = output(0), output(1)
    terms = [
        Term("ce", CrossEntropy(), 0.3, on="logits"),
        Term("kd", HintonKD(), 0.7, on="logits", needs_teacher=True),
        Term("cc", CorrelationCongruenceLoss(), Ramp(0, 100), on="neck", needs_teacher=True),
    ]
    values = Objective(terms)(student, LABELS, teacher, progress=0.5)
    alone = {
        "ce": CrossEntropy()(student.logits, LABELS),
        "kd": HintonKD()(student.logits, ref_emb=teacher.logits),
        "cc": CorrelationCongruenceLoss()(student.neck, ref_emb=teacher.neck),
    }
    torch.testing.assert_close({name: values[name] for name in alone}, alone)
    torch.testing.assert_close(values["loss"], 0.3 * alone["ce"] + 0.7 * alone["kd"] + 50 * alone["cc"])


def test_a_term_without_weight_now_costs_nothing() -> None:
    class Fails(nn.Module):
        def forward(self, *_: Any) -> Tensor:
            raise AssertionError("it was called")

    later = Term("later", Fails(), Ramp(0, 1, begin=0.5))
    student = output(0)
    assert Objective([Term("ce", CrossEntropy(), on="logits"), later])(student, LABELS).keys() == {"loss", "ce"}
    value = Objective([later])(student, LABELS)["loss"]
    value.backward()
    assert value.item() == 0
    assert student.embedding.grad is not None
    assert not student.embedding.grad.any()


class Notes(nn.Module):
    """Remembers what it was called with."""

    def forward(self, *arguments: Any, **options: Any) -> Tensor:
        self.arguments, self.options = arguments, options
        total: Tensor = arguments[0].sum()
        return total


def test_only_who_asks_is_handed_the_teacher_the_index_and_pairs() -> None:
    plain, learner, indexed = Notes(), Notes(), Notes()
    indexed.needs_index = True  # type: ignore[assignment]
    terms = [
        Term("plain", plain, miner=BatchHardMiner()),
        Term("learner", learner, on="neck", needs_teacher=True),
        Term("indexed", indexed),
    ]
    student, teacher, index = output(0), output(1), torch.arange(6)
    Objective(terms)(student, LABELS, teacher, index=index)
    assert len(plain.arguments[2]) == 3
    assert plain.options == {}
    assert learner.arguments[2] is None
    torch.testing.assert_close((learner.arguments[0], learner.options["ref_emb"]), (student.neck, teacher.neck))
    assert indexed.options["index"] is index


def test_half_precision_under_autocast_is_widened() -> None:
    notes = Notes()
    student = output(0).each(lambda rows: rows.detach().half())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        Objective([Term("it", notes)])(student, LABELS)
    assert notes.arguments[0].dtype == torch.float32


def test_balance_tells_shares_of_loss_and_of_gradient() -> None:
    student, teacher = output(0), output(1)
    terms = [
        Term("l2", EmbeddingMimic(normalize_embeddings=False), 2.0, needs_teacher=True),
        Term("triplet", TripletMarginLoss(), 0.5),
        Term("cc", CorrelationCongruenceLoss(), Ramp(0, 30), on="neck", needs_teacher=True),
        Term("later", CosineMimic(), Ramp(0, 1, begin=0.9), needs_teacher=True),
    ]
    shares = {share.term: share for share in Objective(terms).balance(student, LABELS, teacher, progress=0.5)}
    value = EmbeddingMimic(normalize_embeddings=False)(student.embedding, ref_emb=teacher.embedding)
    (gradient,) = torch.autograd.grad(2 * value, student.embedding)
    assert (shares["l2"].value, shares["l2"].weight) == pytest.approx((value.item(), 2.0))
    assert shares["l2"].gradient_norm == pytest.approx(gradient.norm().item())
    (gradient,) = torch.autograd.grad(
        15 * CorrelationCongruenceLoss()(2 * student.embedding, ref_emb=teacher.neck), student.embedding
    )
    assert shares["cc"].gradient_norm == pytest.approx(gradient.norm().item())  # through the neck
    assert sum(share.loss_share for share in shares.values()) == pytest.approx(1)
    assert sum(share.gradient_share for share in shares.values()) == pytest.approx(1)
    assert (shares["later"].loss_share, shares["later"].gradient_share) == (0, 0)
    assert shares["later"].value > 0


def test_balance_of_terms_before_the_embedding_is_seen_where_they_look() -> None:
    maps = torch.randn(6, 4, 3, 3, requires_grad=True, generator=torch.Generator().manual_seed(0))
    embedding = maps.mean(dim=(2, 3))
    student = Output(embedding, embedding, None, maps)
    teacher = Output(embedding.detach() + 1, embedding.detach() + 1, None, maps.detach().roll(1, dims=0))
    terms = [
        Term("attention", AttentionTransfer(), 100.0, on="feature_map", needs_teacher=True),
        Term("l2", EmbeddingMimic(normalize_embeddings=False), needs_teacher=True),
    ]
    shares = {share.term: share for share in Objective(terms).balance(student, LABELS, teacher)}
    value = AttentionTransfer()(maps, ref_emb=teacher.feature_map)
    (gradient,) = torch.autograd.grad(100 * value, maps, retain_graph=True)
    assert shares["attention"].gradient_norm == pytest.approx(gradient.norm().item())
    mimic = EmbeddingMimic(normalize_embeddings=False)(embedding, ref_emb=teacher.embedding)
    (gradient,) = torch.autograd.grad(mimic, maps)
    assert shares["l2"].gradient_norm == pytest.approx(gradient.norm().item())


def test_balance_leaves_no_trace() -> None:
    objective = Objective(
        [
            Term("cc", CorrelationCongruenceLoss(memory=PairMemory(9)), needs_teacher=True),
            Term("centres", AdaDistill(3, 4), needs_teacher=True),
            Term("crd", CRD(4, 4, 6, negatives=2), needs_teacher=True),
        ]
    ).double()
    student, index = output(0), torch.arange(6)
    before = {name: value.clone() for name, value in objective.state_dict().items() if isinstance(value, Tensor)}
    objective.balance(student, LABELS, output(1), index=index)
    after = objective.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert len(objective.terms[0].loss.memory) == 0  # type: ignore[arg-type]
    assert objective.training
    objective(student, LABELS, output(1), index=index)["loss"].backward()  # the graph is still there


@pytest.mark.parametrize("names", [[], ["a", "a"], ["loss"]])
def test_terms_have_names_of_their_own(names: list[str]) -> None:
    with pytest.raises(ValueError, match="terms"):
        Objective([Term(name, CosineMimic()) for name in names])


def test_what_is_missing_is_named() -> None:
    mimic = Objective([Term("mimic", CosineMimic(), needs_teacher=True)])
    with pytest.raises(ValueError, match="'mimic' learns from a teacher"):
        mimic(output(0), LABELS)
    maps = Objective([Term("at", CosineMimic(), on="feature_map")])
    with pytest.raises(ValueError, match="'at' needs the student's feature_map"):
        maps(output(0), LABELS)
