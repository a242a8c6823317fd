"""Embedders and teachers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from reid_cckd.errors import CheckpointError, ConfigError
from reid_cckd.models import GAP, Deployed, Embedder, GeM, Teacher

TINY = {"channels": (8, 8, 16, 16), "stem_width": 8}


def embedder(**options: object) -> Embedder:
    return Embedder("resnet10t", **{"image_size": (32, 32), "options": TINY, "num_classes": 5, **options})  # type: ignore[arg-type]


def images(count: int = 4, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet10t", TINY),
        ("mobilenetv3_small_050", {}),
        ("vit_tiny_patch16_224", {"img_size": (64, 32)}),
        ("swin_tiny_patch4_window7_224", {"img_size": (64, 32)}),
    ],
)
def test_any_kind_of_backbone_gives_the_same_shapes(name: str, options: dict[str, object]) -> None:
    network = Embedder(name, image_size=(64, 32), options=options, embedding=12, num_classes=5, pooling="gem")
    output = network(images(4, 64, 32))
    assert (output.embedding.shape, output.neck.shape) == ((4, 12), (4, 12))
    assert output.logits is not None
    assert output.logits.shape == (4, 5)
    assert output.feature_map.ndim == 4
    sum(part.sum() for part in output).backward()
    unused = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not [name for name in unused if not name.startswith("backbone")]


def test_input_is_normalised_by_the_backbones_own_statistics() -> None:
    half = Embedder("vit_tiny_patch16_224", image_size=(32, 32), options={"img_size": 32})  # 0.5, 0.5
    imagenet = embedder()
    white = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    assert torch.allclose(half.normalise(white), torch.ones(1, 3, 2, 2))
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(imagenet.normalise(white)[0, :, 0, 0], expected)


@pytest.mark.parametrize("wrap", [lambda network: network, Teacher], ids=["student", "teacher"])
def test_images_that_were_normalised_before_are_warned_of_once(wrap: Callable[[Embedder], nn.Module]) -> None:
    network = wrap(embedder())
    network(torch.zeros(2, 3, 32, 32))
    with pytest.warns(UserWarning, match="images: floats up to 1, expected uint8, or floats from 0 to 255"):
        network(images() / 255)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network(images() / 255)
        other = wrap(embedder())
        other(images().float())
        other(torch.full((2, 3, 32, 32), 3.0))  # dark after something bright


def test_no_head_and_no_neck() -> None:
    output = embedder(num_classes=None, neck="none")(images())
    assert output.logits is None
    assert embedder(num_classes=0).head is None  # as in timm
    assert output.neck is output.embedding


def test_what_is_deployed_of_a_network_leaves_it_whole() -> None:
    network = Embedder("resnet10t", image_size=(32, 16), options={"channels": [8, 8, 8, 8]}, num_classes=5)
    head, neck = network.head, network.neck
    deployed = Deployed(network, "embedding")
    assert not [name for name, _ in deployed.named_parameters() if "head" in name or "neck" in name]
    assert (network.head, network.neck) == (head, neck)
    assert deployed.network.backbone is network.backbone
    assert not any(module.training for module in deployed.modules())


def test_gem_is_the_mean_at_one_and_the_maximum_far_up() -> None:
    maps = torch.rand(2, 3, 4, 5) + 0.1
    assert torch.allclose(GeM(1.0)(maps), GAP()(maps))
    assert torch.allclose(GeM(200.0)(maps), maps.amax(dim=(2, 3)), rtol=0.02)


def test_gem_survives_negative_maps() -> None:
    maps = -torch.rand(2, 3, 4, 4, requires_grad=True)
    GeM()(maps).sum().backward()


def test_teacher_stays_in_eval_mode_without_gradients() -> None:
    teacher = Teacher(embedder())
    student = nn.ModuleDict({"teacher": teacher})
    before = {name: value.clone() for name, value in teacher.network.state_dict().items()}
    student.train()
    outputs = [teacher(images()) for _ in range(2)]
    assert not any(module.training for module in teacher.network.modules())
    assert not any(value.requires_grad for value in [*outputs[0], *teacher.parameters()] if value is not None)
    assert all(torch.equal(value, before[name]) for name, value in teacher.network.state_dict().items())


def test_teacher_resizes_to_its_own_size() -> None:
    teacher = Teacher(embedder(image_size=(48, 24)))
    assert teacher(images(2, 32, 32)).embedding.shape == (2, 16)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "resnet18_"}, "Did you mean 'resnet18'"),
        ({"backbone": "resnet10t", "options": {"chanels": (1, 2)}}, "model.options"),
        ({"backbone": "vit_tiny_patch16_224"}, "img_size"),
        ({"backbone": "resnet10t", "pooling": "avg"}, "model.pooling: expected one of gap, gem, flatten, gdc"),
        ({"backbone": "resnet10t", "neck": "bnneck"}, "model.neck: expected 'bn' or 'none'"),
        ({"backbone": "resnet10t", "pretrained": "nowhere.pth"}, "there is no file nowhere.pth"),
    ],
)
def test_bad_input_is_named(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Embedder(**{"image_size": (32, 32), **options})  # type: ignore[arg-type]


def test_local_weights_load_and_misfits_are_refused(tmp_path: Path) -> None:
    source = timm.create_model("resnet10t", num_classes=7, **TINY)
    torch.save(source.state_dict(), tmp_path / "good.pth")
    network = embedder(pretrained=str(tmp_path / "good.pth"))
    assert torch.equal(network.backbone.conv1[0].weight, source.conv1[0].weight)  # type: ignore[union-attr,index]
    with pytest.raises(CheckpointError, match="is not a resnet18"):
        Embedder("resnet18", image_size=(32, 32), pretrained=str(tmp_path / "good.pth"))
    (tmp_path / "cut.pth").write_bytes((tmp_path / "good.pth").read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="cannot read"):
        embedder(pretrained=str(tmp_path / "cut.pth"))
