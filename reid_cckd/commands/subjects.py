"""What `test` and `compare` evaluate: a checkpoint on its data, or embeddings that `extract` kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from reid_cckd import build
from reid_cckd.assess import RetrievalJudge, held_back
from reid_cckd.commands.making import MADE_WITH, refuse_other_making
from reid_cckd.config import Config, Data, Evaluation, config_from_dict, to_dict
from reid_cckd.data import Manifest, Source, refuse_unlabelled
from reid_cckd.data.sources import Files
from reid_cckd.engine import Embeddings, check_alike, is_embeddings, local_device, pick_device
from reid_cckd.engine.embeddings import part_of
from reid_cckd.errors import ConfigError, UserError
from reid_cckd.models import Embedder

TEST_KEYS = ("data.", "evaluation.", "train.device", "train.amp")  # what a test may change of a checkpoint's settings


@dataclass(frozen=True)
class Subject:
    """Query and gallery in an embedding space and what is known about where they come from."""

    name: str
    query: Embeddings
    gallery: Embeddings
    settings: Evaluation
    device: torch.device
    config: dict[str, Any]  # for the record
    images: Source | None = None  # reads them by their paths, where it is known how
    network: Embedder | None = None
    manifest: Manifest | None = None
    teacher_sha256: str | None = None  # of what the network learned from


@dataclass(frozen=True)
class Tested:
    """A network in its place, and the data that it is tested on; ``classes``: the labels of its head."""

    network: Embedder
    config: Config
    manifest: Manifest
    device: torch.device
    classes: list[int]
    sha256: str
    teacher_sha256: str | None


def open_subject(source: Path, overrides: Sequence[str] = (), gallery: Path | None = None) -> Subject:
    """The embeddings in a folder, or those of a checkpoint, computed now by all processes of a distributed run.

    ``gallery``: another folder of embeddings of the same checkpoint, which holds the gallery.

    Raises:
        UserError: no such file, or what it holds does not fit; a key that cannot be changed here.
    """
    if is_embeddings(source) or (source.suffix == "" and not source.is_file()):
        subject = _from_folder(source, overrides, gallery)
    elif gallery is not None:
        raise ConfigError(f"--gallery goes with a folder of embeddings; {source} is a checkpoint.")
    else:
        subject = _from_checkpoint(source, overrides)
    refuse_unlabelled(subject.query.labels, f"queries of {source}")
    return subject


def open_checkpoint(source: Path, overrides: Sequence[str] = ()) -> Tested:
    """The network of a checkpoint, and what it is to be tested on.

    Raises:
        UserError: no such file, a key that cannot be changed here, or other files on other processes.
    """
    refuse_others(overrides, TEST_KEYS)
    loaded = build.load_network(source)
    config = config_from_dict(to_dict(loaded.config), str(source), overrides)
    device = local_device(pick_device(config.train.device))
    manifest = build.read_manifest(config.data)
    check_alike({"The checkpoint": loaded.sha256, "The data": f"{manifest.name} of {len(manifest):,} images"})
    network = build.place(loaded.network, config, device)
    known = loaded.on(manifest).classes, loaded.sha256, loaded.teacher_sha256
    return Tested(network, config, manifest, device, *known)


def embed_tested(source: Path, overrides: Sequence[str] = ()) -> Embeddings:
    """What a checkpoint makes of the images it is tested on: a gallery, or those of classes that were held back.

    Raises:
        UserError: no such file, a key that cannot be changed here, or a data set without such images.
    """
    tested = open_checkpoint(source, overrides)
    role = "gallery" if len(tested.manifest.select("gallery")) else held_back(tested.manifest)
    return _retrieval_judge(tested).embed_role(tested.network, role, tested.sha256)


def usual_output(source: Path, overrides: Sequence[str]) -> Path:
    """Where a report goes that nobody placed: inside a folder of embeddings, or beside a checkpoint.

    That of a checkpoint on another data set bears its name, and leaves the report on the own one in peace.
    """
    if is_embeddings(source):
        return source / "test"
    others = [text.partition("=")[2] for text in overrides if text.startswith("data.dataset=")]
    return source.parent / "_".join(["test", *others[-1:]])


def subject_of(
    name: str, network: Embedder, config: Config, judge: RetrievalJudge, sha256: str, teacher_sha256: str | None
) -> Subject:
    """Embed a network's query and gallery images."""
    query, gallery = judge.embed(network, sha256)
    known: dict[str, Any] = {"images": judge.manifest.reader, "network": network, "manifest": judge.manifest}
    known["teacher_sha256"] = teacher_sha256
    return Subject(name, query, gallery, judge.settings, judge.device, to_dict(config), **known)


def _from_folder(source: Path, overrides: Sequence[str], gallery: Path | None) -> Subject:
    config = configured(overrides, ("evaluation.", "train.device", "data.root", "data.dataset"))
    if not is_embeddings(source) and not part_of(source).exists():
        found = "holds neither last.pt nor vectors.npy" if source.is_dir() else "does not exist"
        raise UserError(f"{source} {found}. Expected a run's folder or checkpoint, or embeddings that `extract` kept.")
    first = Embeddings.load(source)
    other = first if gallery is None else Embeddings.load(gallery)
    if first.source != other.source:
        raise UserError(
            f"{source} and {gallery} come from different checkpoints ({first.source[:12]} and {other.source[:12]}); "
            f"extract both with the same one. To search one network's gallery by another's queries, use "
            f"reid-cckd compare."
        )
    refuse_other_making(first, source, other, gallery)
    _refuse_other_names(first.class_names, other.class_names)
    images = _images(config.data, overrides) if config.data.root else None
    device = local_device(pick_device(config.train.device))
    settings = _as_extracted(config.evaluation, first.about, overrides, source)
    record = {"evaluation": asdict(settings), "embeddings": dict(first.about)}
    parts = (first.select("query"), other.select("gallery"))
    return Subject(source.name, *parts, settings, device, record, images)


def configured(overrides: Sequence[str], allowed: tuple[str, ...]) -> Config:
    """What the command line says of ``allowed`` keys, and the usual of all others: embeddings bring no settings.

    Raises:
        ConfigError: another key, or one that is wrong.
    """
    refuse_others(overrides, allowed)
    blank = {"output": "-", "data": {"root": ""}, "model": {"backbone": "-"}}
    return config_from_dict(blank, "command line", overrides)


def _refuse_other_names(queries: Mapping[int, str], gallery: Mapping[int, str]) -> None:
    """Two tables may give one number to two people, where it stands for a name."""
    for label, name in queries.items():
        if (other := gallery.get(label, name)) != name:
            raise UserError(
                f"Label {label} is {name!r} among the queries and {other!r} in the gallery: names were numbered apart. "
                "Extract both from one table of images, told apart by their split."
            )


def _as_extracted(settings: Evaluation, about: Mapping[str, Any], overrides: Sequence[str], source: Path) -> Evaluation:
    """The settings with what the embeddings were made with: None where neither they nor the user say it."""
    given = {name: getattr(settings, name) for name in MADE_WITH if changes(overrides, f"evaluation.{name}")}
    made: dict[str, Any] = {name: about.get(name, given.get(name)) for name in MADE_WITH}
    for name in given:
        if made[name] != given[name]:
            raise ConfigError(
                f"evaluation.{name}={given[name]}: {source} was extracted with {made[name]}; extract anew to change it."
            )
    return replace(settings, **made)


def _images(data: Data, overrides: Sequence[str]) -> Source:
    """What reads the images below ``data.root``: as a layout has them that is named, or else files."""
    named = changes(overrides, "data.dataset")
    return build.read_manifest(data).reader if named else Files(Path(data.root))


def changes(overrides: Sequence[str], key: str) -> bool:
    """Whether the command line gives this key."""
    return any(override.startswith(f"{key}=") for override in overrides)


def _from_checkpoint(source: Path, overrides: Sequence[str]) -> Subject:
    tested = open_checkpoint(source, overrides)
    hashes = tested.sha256, tested.teacher_sha256
    return subject_of(source.parent.name, tested.network, tested.config, _retrieval_judge(tested), *hashes)


def _retrieval_judge(tested: Tested) -> RetrievalJudge:
    config, device = tested.config, tested.device
    return RetrievalJudge(tested.manifest, config.evaluation, config.data, device, build.precision(config, device))


def refuse_others(overrides: Sequence[str], allowed: tuple[str, ...]) -> None:
    """A checkpoint's model is what it is, and so are embeddings; only what is measured can be changed."""
    for override in overrides:
        if not override.startswith(allowed) or override.startswith("data.image_size"):
            names = ", ".join(f"{name}*" if name.endswith(".") else name for name in allowed)
            raise ConfigError(f"{override}: this changes {names} only.")
