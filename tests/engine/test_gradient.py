"""The gradient in chunks is the gradient of the batch."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import Tensor, nn

from reid_cckd.batch import Output
from reid_cckd.engine.gradient import ALL_STAGES, Shown, backward_in_chunks, untouched_statistics

N = 12


class Network(nn.Module):
    """Embedding, neck and logits, each a function of the one before, with dropout and a batch norm if asked for."""

    def __init__(self, dropout: float = 0.0, norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 5))
        self.norm = nn.BatchNorm1d(5) if norm else nn.Identity()
        self.head = nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Output:
        embedding = self.body(images)
        neck = self.norm(embedding)
        return Output(embedding, neck, self.head(neck))


def relational(output: Output) -> Tensor:
    """Pairs of all rows, at every stage."""
    assert output.logits is not None
    gram = (output.neck @ output.neck.T).tanh()
    return gram.mean() + output.embedding.square().mean() + output.logits.logsumexp(1).mean()


def images() -> Tensor:
    return torch.randn(N, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def gradients(network: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]


def in_chunks(network: nn.Module, chunk: int, stages: tuple[str, ...] = ALL_STAGES) -> list[Tensor]:
    backward_in_chunks(Shown(network), images(), chunk, stages, relational, contextlib.nullcontext)
    return gradients(network)


@pytest.mark.parametrize("chunk", [1, 5, 6, 12])
def test_chunks_give_the_direct_gradient(chunk: int) -> None:
    direct = Network().double()
    relational(direct(images())).backward()
    expected = gradients(direct)
    assert len(expected) == 6
    torch.testing.assert_close(in_chunks(Network().double(), chunk), expected, rtol=1e-12, atol=1e-15)


def test_dropout_is_drawn_alike_in_both_passes_and_runs_on() -> None:
    direct = Network(dropout=0.5).double()
    torch.manual_seed(5)
    parts = [direct(part) for part in images().split(4)]
    whole = Output(*(torch.cat(columns) for columns in zip(*[part[:3] for part in parts], strict=True)))
    relational(whole).backward()
    after = torch.rand(1)
    network = Network(dropout=0.5).double()
    torch.manual_seed(5)
    torch.testing.assert_close(in_chunks(network, 4), gradients(direct), rtol=1e-12, atol=1e-15)
    assert torch.equal(torch.rand(1), after)


def test_batch_norms_see_chunks_and_count_them_once() -> None:
    direct, chunked = Network(norm=True).double(), Network(norm=True).double()
    parts = [direct(part) for part in images().split(4)]
    whole = Output(*(torch.cat(columns) for columns in zip(*[part[:3] for part in parts], strict=True)))
    relational(whole).backward()
    torch.testing.assert_close(in_chunks(chunked, 4), gradients(direct), rtol=1e-12, atol=1e-15)
    for name, value in direct.state_dict().items():
        torch.testing.assert_close(chunked.state_dict()[name], value)
    assert int(chunked.state_dict()["norm.num_batches_tracked"]) == 3


def test_untouched_statistics_normalise_as_in_training() -> None:
    network = Network(norm=True).double()
    expected = Network(norm=True).double()(images()).neck
    with untouched_statistics(network):
        assert torch.equal(network(images()).neck, expected)
    assert int(network.state_dict()["norm.num_batches_tracked"]) == 0


def test_only_the_stages_asked_for_are_kept() -> None:
    output = Shown(Network())(torch.zeros(2, 6), {"neck"})
    assert [name for name, value in output._asdict().items() if value is not None] == ["neck"]


def test_a_loss_that_looks_at_one_stage_leaves_the_head_without_gradient() -> None:
    network = Network()
    backward_in_chunks(
        Shown(network), images().float(), 5, {"neck"}, lambda output: output.neck.square().sum(), contextlib.nullcontext
    )
    assert network.head.weight.grad is None
    assert network.body[0].weight.grad is not None
