"""Every loss, kernel and option can be asked for in a configuration, and what does not fit is refused beforehand."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reid_cckd.batch import Output
from reid_cckd.build import Loaded, build_network, build_objective
from reid_cckd.config import Config, config_from_dict, load_config
from reid_cckd.errors import ConfigError
from reid_cckd.losses import LABEL_LOSSES, LOSSES, MMD, Bilinear, CorrelationCongruenceLoss, Objective, correlation
from reid_cckd.models import Embedder

IMAGES, CLASSES = 40, [3, 5, 8, 11]
BY_CLASS = [  # what PML has with a weight for each class
    "ArcFaceLoss",
    "CosFaceLoss",
    "LargeMarginSoftmaxLoss",
    "NormalizedSoftmaxLoss",
    "P2SGradLoss",
    "ProxyAnchorLoss",
    "ProxyNCALoss",
    "SoftTripleLoss",
    "SphereFaceLoss",
    "SubCenterArcFaceLoss",
]
BY_PAIR = ["TripletMarginLoss", "MultiSimilarityLoss", "CircleLoss", "SupConLoss", "MarginLoss", "SmoothAPLoss"]


@functools.cache
def network(width: int, classes: int | None = len(CLASSES), role: str = "student") -> Embedder:
    options = {"channels": [8, 8, 16, 16], "stem_width": 8}
    return Embedder("resnet10t", image_size=(64, 64), num_classes=classes, embedding=width, options=options)


def configured(objective: dict[str, Any], teacher: bool = True) -> Config:
    values: dict[str, Any] = {"output": "x", "data": {"root": "x"}, "model": {"backbone": "resnet10t"}}
    if teacher:
        values["teacher"] = {"checkpoint": "x.pt"}
    return config_from_dict({**values, "objective": objective}, "test")


def built(objective: dict[str, Any], width: int | None = 12, teacher_classes: list[int] | None = None) -> Objective:
    """For a student of width 12 and a teacher of this one, or none."""
    config, classes = configured(objective, width is not None), teacher_classes or CLASSES
    teacher = None if width is None else Loaded(network(width, len(classes), "teacher"), config, classes, "")
    return build_objective(config, CLASSES, network(12), teacher, IMAGES)


def term(loss: str, **keys: Any) -> dict[str, Any]:
    return {"alpha": 1, "terms": [{"name": "it", "loss": loss, **keys}]}


def made(objective: dict[str, Any], **options: Any) -> Any:
    """The loss of the last term."""
    return built(objective, **options).terms[-1].loss


def step(objective: Objective, teacher_width: int | None = 12) -> dict[str, torch.Tensor]:
    """Forward and backward on what the networks say about a batch; the student must have been pulled."""
    images, rows = torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8), torch.arange(8)
    output: Output = network(12)(images)
    output.feature_map.retain_grad()
    teacher = None if teacher_width is None else network(teacher_width, role="teacher").eval()(images)
    values = objective(output, rows % len(CLASSES), teacher, index=rows)
    values["it" if "it" in values else "loss"].backward()
    assert output.feature_map.grad is not None
    assert output.feature_map.grad.any()
    return values  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_of_the_table_needs_no_more_than_its_name(name: str) -> None:
    step(built(term(name)))


@pytest.mark.parametrize("name", [*BY_CLASS, *BY_PAIR])
def test_losses_of_pml_need_no_more_than_their_name(name: str) -> None:
    objective = built(term(name), width=None)
    step(objective, teacher_width=None)
    assert bool(list(objective.parameters())) == (name in BY_CLASS)


@pytest.mark.parametrize("name", sorted(LOSSES.keys() - LABEL_LOSSES))
def test_without_a_teacher_there_is_nothing_to_learn_from(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^objective\.terms\.0 \(it\): {name} learns from a teacher"):
        built(term(name), width=None)


def test_what_a_loss_asks_for_is_what_the_run_has() -> None:
    crd = made(term("crd", on="neck", options={"negatives": 5}), width=20)
    widths = crd.student_projection.in_features, crd.teacher_projection.in_features
    assert (widths, crd.num_images, crd.negatives) == ((12, 20), IMAGES, 5)
    assert made(term("fitnet"), width=20).projection.weight.shape == (16, 16)  # channels of the maps
    assert made(term("fitnet", on="embedding"), width=20).projection.weight.shape == (20, 12)
    assert made(term("projected_mimic"), width=20).projection.weight.shape == (20, 12)
    assert made(term("adadistill")).centres.shape == (len(CLASSES), 12)
    assert made(term("SubCenterArcFaceLoss"), width=None).W.shape == (12, 3 * len(CLASSES))
    assert made(term("ArcFaceLoss", options={"num_classes": 9}), width=None).W.shape == (12, 9)
    assert made(term("MarginLoss"), width=None).beta.numel() == 1  # one for each class only if asked for


def test_a_loss_looks_where_it_belongs_unless_told() -> None:
    places = {name: built(term(name)).terms[-1].on for name in ("dist", "dkd", "attention", "csd")}
    assert places == {"dist": "logits", "dkd": "logits", "attention": "feature_map", "csd": "embedding"}
    assert built(term("csd", on="neck")).terms[-1].on == "neck"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"project": True},
        {"within_weight": 2, "between_weight": 0.5},
        {"memory": 20, "memory_age": 3},
        {"miner": "TripletMarginMiner", "miner_options": {"margin": 2.0}},
    ],
    ids=lambda options: " ".join(options) or "plain",
)
@pytest.mark.parametrize("kernel", ["gaussian", "bilinear", "mmd"])
def test_every_option_of_the_correlation(options: dict[str, Any], kernel: str) -> None:
    objective = built({"beta": 10, "kernel": {"name": kernel}, "correlation": options}, width=20)
    assert "cc" in step(objective, teacher_width=20)
    loss: Any = objective.terms[-1].loss
    assert (loss.within_weight, loss.between_weight) == (2.0, 0.5) if "within_weight" in options else (1.0, 1.0)
    assert (loss.projection is not None) == ("project" in options) == any("projection" in k for k in loss.state_dict())
    assert loss.memory is None if "memory" not in options else (loss.memory.max_age, len(loss.memory)) == (3, 8)
    assert (objective.terms[-1].miner is not None) == ("miner" in options)


def test_kernels_are_made_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    gaussian = made({"beta": 1, "kernel": {"gamma": "median", "order": None}}).distance
    assert (gaussian.gamma, gaussian.order) == ("median", None)
    for name, kind in (("bilinear", Bilinear), ("mmd", MMD)):
        distance = made({"beta": 1, "kernel": {"name": name, "normalize": False}}).distance
        assert isinstance(distance, kind)
        assert not distance.normalize_embeddings
    monkeypatch.setattr(correlation, "CompiledStep", lambda: correlation.CompiledStep)
    with pytest.raises(ConfigError, match=r"^objective\.correlation: "):  # it was taken for a step, and tried
        built({"beta": 1, "correlation": {"compile": True}})


def test_kd_over_the_shared_classes_when_told() -> None:
    ours_and_more = [11, 4, 3, 8, 90]
    objective = built({"alpha": 0.5, "shared_classes": True}, teacher_classes=ours_and_more)
    columns = objective.terms[1].loss.columns
    assert columns.tolist() == [[0, 2, 3], [2, 3, 0]]
    further = made({**term("kd"), "shared_classes": True}, teacher_classes=ours_and_more)
    assert further.columns.tolist() == columns.tolist()
    assert made({"alpha": 0.5, "shared_classes": True}).columns is None  # the same classes: nothing to leave out
    for case in ({"alpha": 0.5}, term("kd"), {**term("dist"), "shared_classes": True}):
        with pytest.raises(
            ConfigError, match=r"5 .* data 4 \(3 in common; 11 is class 0 of the teacher and class 3 here\)"
        ):
            built(case, teacher_classes=ours_and_more)
    with pytest.raises(ConfigError, match="two or more in common, found 1"):
        built({"alpha": 0.5, "shared_classes": True}, teacher_classes=[3, 99])


@pytest.mark.parametrize(
    ("objective", "width", "message"),
    [
        (term("cosine_mimic"), 20, r"objective\.terms\.0 \(it\): ref_emb: width 20, embeddings: 12"),
        (term("adadistill"), 20, r"objective\.terms\.0 \(it\): ref_emb: width 20"),
        (term("sp", on="feature_map"), 12, r"objective\.terms\.0 \(it\): embeddings: expected a matrix"),
        (term("attention", on="neck"), 12, r"objective\.terms\.0 \(it\): embeddings: expected maps"),
        (term("kd", options={"temperature": 0}), 12, r"objective\.terms\.0 \(it\): temperature"),
        (term("kd", options={"tau": 1}), 12, r"objective\.terms\.0 \(it\): .*'tau'"),
        (term("kdd"), 12, r"objective\.terms\.0 \(it\): .*no loss 'kdd'.*Losses of this toolkit: .* kd,"),
        (term("cross_entropy", miner="BatchHardMiner"), None, r"objective\.terms\.0 \(it\): indices_tuple"),
        (term("sp", miner="BatchHardMiner"), 12, r"objective\.terms\.0 \(it\): indices_tuple"),
        (term("ManifoldLoss"), 12, r"objective\.terms\.0 \(it\): .*'l'"),
        (term("VICRegLoss"), 12, r"objective\.terms\.0 \(it\): .*ref_labels"),
        ({"label_smoothing": 2}, None, r"objective\.label_smoothing: "),
        ({"beta": 1, "kernel": {"gamma": -1}}, 12, r"objective\.kernel: gamma"),
        ({"beta": 1, "kernel": {"order": -1}}, 12, r"objective\.kernel: order"),
        ({"beta": 1, "kernel": {"normalize": False}}, 12, r"objective\.kernel: normalize"),
        ({"beta": 1, "correlation": {"within_weight": -1}}, 12, r"objective\.correlation: within_weight"),
        ({"beta": 1, "correlation": {"memory": 9, "memory_age": 0}}, 12, r"objective\.correlation: max_age"),
        ({"beta": 1, "correlation": {"memory": 9, "miner": "BatchHardMiner"}}, 12, "objective.correlation: indices"),
        ({"beta": 1, "correlation": {"miner": "BatchHardMinr"}}, 12, r"objective\.correlation: .*BatchHardMiner"),
        ({"beta": {"start": 0, "stop": 1, "begin": 1}}, 12, r"objective\.beta: begin and end"),
        ({"alpha": 0, "beta": 0}, None, "every weight is 0|needs `teacher:`"),
    ],
)
def test_what_does_not_fit_is_refused_before_work_starts(objective: Any, width: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        built(objective, width=width)


def test_the_trial_leaves_no_trace() -> None:
    torch.manual_seed(0)
    config, student = configured(term("adaface"), teacher=False), network(12)
    before = torch.get_rng_state()
    loss: Any = build_objective(config, CLASSES, student, None, IMAGES).terms[-1].loss
    torch.set_rng_state(before)
    alone = LOSSES["adaface"](len(CLASSES), 12)
    for name, value in alone.state_dict().items():
        assert torch.equal(loss.state_dict()[name], value)
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    build_objective(config, CLASSES, student, None, IMAGES)
    assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize("objective", [{"alpha": 0.5}, {"beta": 1, "correlate": "logits"}, term("kd"), term("dist")])
def test_a_teacher_without_a_head_has_no_logits_to_compare(objective: dict[str, Any]) -> None:
    config = configured(objective)
    headless = Loaded(network(12, None, "teacher"), config, CLASSES, "")
    with pytest.raises(ConfigError, match=r"^objective\..* needs the teacher's logits"):
        build_objective(config, CLASSES, network(12), headless, IMAGES)


@pytest.mark.parametrize(
    ("loss", "keys", "has_head"),
    [
        ("dist", {}, True),
        ("dkd", {}, True),
        ("rkd_angle", {}, False),
        ("rkd_angle", {"on": "logits"}, True),
        ("dist", {"on": "neck"}, False),
    ],
)
def test_a_student_has_a_head_if_something_looks_at_it(loss: str, keys: dict[str, str], has_head: bool) -> None:
    config = configured({**term(loss, **keys), "cross_entropy": False})
    assert (build_network(config, len(CLASSES), pretrained=False).head is not None) == has_head


def test_a_cached_teacher_has_no_maps_to_compare() -> None:
    config = configured(term("attention"))
    assert config.teacher is not None
    cached = replace(config, teacher=replace(config.teacher, mode="clean"))
    teacher = Loaded(network(12, role="teacher"), config, CLASSES, "")
    with pytest.raises(ConfigError, match=r"^objective\.terms\.0 \(it\): .* needs the teacher's feature_map"):
        build_objective(cached, CLASSES, network(12), teacher, IMAGES)


def test_the_memory_stays_empty_until_training() -> None:
    loss = made({"beta": 1, "correlation": {"memory": 5}})
    assert isinstance(loss, CorrelationCongruenceLoss)
    assert loss.memory is not None
    assert len(loss.memory) == 0


def test_the_configuration_in_the_documentation_builds(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "losses.md").read_text(encoding="utf-8")
    (section,) = (part for part in re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL) if "terms:" in part)
    rest = "output: x\ndata: {root: x}\nmodel: {backbone: resnet10t}\nteacher: {checkpoint: x.pt}\n"
    (tmp_path / "run.yaml").write_text(rest + section)
    config = load_config(tmp_path / "run.yaml")
    teacher = Loaded(network(12, role="teacher"), config, CLASSES, "")
    objective = build_objective(config, CLASSES, network(12), teacher, IMAGES)
    assert objective.weights(0).keys() == {"ce", "kd", "cc", "mimic", "arc", "triplet"}
