"""The networks that timm does not have: known sizes, maps, statistics, and the two face heads."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from reid_cckd.engine import count
from reid_cckd.errors import ConfigError
from reid_cckd.models import Deployed, Embedder, PublishedClassifier, Teacher
from reid_cckd.models.backbone import create_backbone, normalisation

# name: (classes, parameters in millions), as He et al. 2016, CRD's tables and its code have them
PUBLISHED = {
    "cifar_resnet20": (10, 0.27),
    "cifar_resnet32": (10, 0.46),
    "cifar_resnet44": (10, 0.66),
    "cifar_resnet56": (10, 0.85),
    "cifar_resnet110": (10, 1.73),
    "cifar_resnet8": (100, 0.08),
    "cifar_resnet14": (100, 0.18),
    "cifar_resnet8x4": (100, 1.23),
    "cifar_resnet32x4": (100, 7.43),
    "wrn_16_1": (100, 0.18),
    "wrn_16_2": (100, 0.70),
    "wrn_40_1": (100, 0.57),
    "wrn_40_2": (100, 2.26),
    "cifar_vgg8": (100, 3.97),
    "cifar_vgg13": (100, 9.46),
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_parameters_are_those_of_the_literature(name: str) -> None:
    classes, millions = PUBLISHED[name]
    network = timm.create_model(name, num_classes=classes)
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.008)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, classes)
    side = 4 if "vgg" in name else 8
    assert network.forward_features(torch.zeros(1, 3, 32, 32)).shape == (1, network.num_features, side, side)


@pytest.mark.parametrize(
    ("name", "pooling", "width", "millions"),
    [
        ("iresnet18", "flatten", 512, 24.02),
        ("iresnet34", "flatten", 512, 34.14),
        ("iresnet50", "flatten", 512, 43.59),
        ("iresnet100", "flatten", 512, 65.15),
        ("mobilefacenet", "gdc", 128, 0.99),
    ],
)
def test_face_networks_have_the_published_parameters(name: str, pooling: str, width: int, millions: float) -> None:
    network = Embedder(name, image_size=(112, 112), pooling=pooling, embedding=width)  # type: ignore[arg-type]
    assert count(network, network.image_size).parameters / 1e6 == pytest.approx(millions, abs=0.015)
    assert network.project.in_features == (512 * 7 * 7 if pooling == "flatten" else 512)


def test_inputs_are_normalised_as_each_family_expects() -> None:
    assert normalisation(create_backbone("mobilefacenet", False, {})) == ((0.5,) * 3, (0.5,) * 3)
    assert normalisation(create_backbone("cifar_resnet8", False, {}))[0] == (0.4914, 0.4822, 0.4465)


@pytest.mark.parametrize("pooling", ["gdc", "flatten"])
def test_face_heads_see_every_place_of_the_map(pooling: str) -> None:
    network = Embedder("cifar_resnet8", image_size=(16, 12), pooling=pooling, embedding=6, num_classes=3)  # type: ignore[arg-type]
    images = torch.randint(0, 256, (4, 3, 16, 12), dtype=torch.uint8)
    assert network(images).embedding.shape == (4, 6)
    maps = torch.rand(2, 64, 4, 3, requires_grad=True)
    network.project(network.pool.eval()(maps))[0].sum().backward()
    assert maps.grad is not None
    assert bool((maps.grad[0].abs().sum(dim=0) > 0).all())
    assert not torch.allclose(maps.grad[0, :, 0, 0], maps.grad[0, :, 1, 1])  # a mean would weigh both alike


@pytest.mark.parametrize(("name", "size"), [("cifar_resnet8", 32), ("mobilenetv3_small_050", 64), ("resnet10t", 64)])
def test_a_published_classifier_says_what_timm_says(name: str, size: int, tmp_path: Path) -> None:
    source = timm.create_model(name).eval()
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    network = PublishedClassifier(name, image_size=(size, size), pretrained=str(tmp_path / "weights.pth"))
    images = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)
    with torch.no_grad():
        output = Teacher(network)(images)
        assert output.logits is not None
        assert torch.allclose(output.logits, source(network.normalise(images)), atol=1e-5)
        assert torch.allclose(network.backbone.get_classifier()(output.embedding), output.logits, atol=1e-5)  # type: ignore[operator]
    assert output.embedding.shape == (3, network.width)
    assert output.logits.shape == (3, network.num_classes)


def test_the_classifier_of_a_published_one_counts_where_its_scores_do() -> None:
    network = PublishedClassifier("cifar_resnet8", image_size=(32, 32), pretrained=False, options={"num_classes": 7})
    embedding, scores = (count(Deployed(network, answer), (32, 32)) for answer in ("neck", "logits"))
    assert (scores.parameters - embedding.parameters, scores.macs - embedding.macs) == (64 * 7 + 7, 64 * 7)


def test_names_are_found_beside_timms_and_weights_are_not_promised() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'cifar_resnet20'"):
        create_backbone("cifar_resnet2O", False, {})
    with pytest.raises(ConfigError, match=r"model\.pretrained: no weights for wrn_16_2"):
        create_backbone("wrn_16_2", True, {})
    with pytest.raises(ConfigError, match=r"model\.options"):
        create_backbone("wrn_16_2", False, {"drop_rte": 0.1})
