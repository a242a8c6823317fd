"""Is a data set on disk what it should be: counts beside the published ones, damaged files, leaks, hopeless queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from reid_cckd.data.folders import SHOWN
from reid_cckd.data.images import FORMAT_OF, BadImage, in_threads
from reid_cckd.data.manifest import UNLABELLED, Counts, Manifest
from reid_cckd.data.published import PUBLISHED
from reid_cckd.data.sources import Files


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    ``bad``: images that cannot be decoded. ``disguised``: images of another format than their suffix says (they
    decode, some tools refuse them). ``shared_ids``: person ids in training and in test. ``hopeless_queries``: query
    images without a picture of the same person from another camera in the gallery; evaluation leaves them out. Of a set
    that does not ``knows_cameras`` they are those without any other picture of the person. ``class_names``: of the
    shared ids, where the set has names.
    """

    name: str
    root: str
    counts: dict[str, Counts]
    published: dict[str, Counts] | None
    bad: tuple[BadImage, ...]
    disguised: tuple[BadImage, ...]
    shared_ids: tuple[int, ...]
    hopeless_queries: tuple[str, ...]
    knows_cameras: bool = True
    class_names: Mapping[int, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Nothing that spoils a run: counts that differ from the published ones are a note, no fault."""
        return not (self.bad or self.shared_ids)

    def table(self) -> str:
        """Counts and findings as aligned text."""
        return "\n".join(
            [f"{self.name} at {self.root}", "", *_rows(self.counts, self.published), "", *self._findings()]
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it."""
        values = asdict(self)
        for name in ("counts", "published"):
            by_role = getattr(self, name)
            values[name] = by_role and {role: count._asdict() for role, count in by_role.items()}
        for name in ("bad", "disguised"):
            values[name] = [image._asdict() for image in getattr(self, name)]
        return {**values, "ok": self.ok}

    def _findings(self) -> list[str]:
        images = sum(count.images for count in self.counts.values())
        queries = self.counts["query"].images
        match = "match from another camera" if self.knows_cameras else "match"
        described = [
            ("cannot be decoded", images, [f"{image.path}: {image.reason}" for image in self.bad]),
            ("are of another format than their suffix", images, [f"{i.path}: {i.reason}" for i in self.disguised]),
            (f"without a {match} (left out of evaluation)", queries, list(self.hopeless_queries)),
            ("in training and in test", None, [self.class_names.get(label, str(label)) for label in self.shared_ids]),
        ]
        nouns = ("images", "images", "queries", "person ids")
        lines = [line for noun, finding in zip(nouns, described, strict=True) for line in _finding(noun, *finding)]
        searched = self.counts["gallery"].ids > 0 and not self.knows_cameras
        return [*lines, "-> no cameras are known: set evaluation.cameras: ignore"] if searched else lines


def check_manifest(manifest: Manifest, workers: int | None = None) -> CheckReport:
    """Decode every image and look for what spoils a run; ``workers`` threads, one per processor unless told."""
    inspected = in_threads(partial(_inspect, manifest), range(len(manifest)), workers)
    rows = list(tqdm(inspected, "check images", len(manifest), unit="image", delay=1, leave=False, disable=None))
    faults = [(BadImage(row, manifest.paths[row], reason), fatal) for row, (reason, fatal) in enumerate(rows) if reason]
    shared, names = _shared_ids(manifest), manifest.class_names
    return CheckReport(
        name=manifest.name,
        root=str(manifest.root),
        counts=manifest.counts(),
        published=PUBLISHED.get(manifest.name),
        bad=tuple(image for image, fatal in faults if fatal),
        disguised=tuple(image for image, fatal in faults if not fatal),
        shared_ids=shared,
        hopeless_queries=_hopeless_queries(manifest),
        knows_cameras=_knows_cameras(manifest),
        class_names={label: names[label] for label in shared if label in names},
    )


def _inspect(manifest: Manifest, row: int) -> tuple[str, bool]:
    """What is wrong with an image, if anything, and whether that makes it useless."""
    decoded = manifest.image_or_reason(row)
    if isinstance(decoded, str):
        return decoded, True
    return (_disguise(manifest.path(row)) if isinstance(manifest.reader, Files) else ""), False


def _disguise(path: Path) -> str:
    with Image.open(path) as image:
        expected = FORMAT_OF.get(path.suffix.lower())
        found = "JPEG" if image.format == "MPO" else image.format  # a JPEG with further pictures, as phones take it
        return "" if found == expected else f"holds {found}"


def _shared_ids(manifest: Manifest) -> tuple[int, ...]:
    train, test = manifest.select("train"), manifest.select("query", "gallery")
    test = test.take(test.labels != UNLABELLED)
    return tuple(np.intersect1d(train.labels, test.labels).tolist())


def _hopeless_queries(manifest: Manifest) -> tuple[str, ...]:
    """Queries nobody can match; of a set without cameras, those without any other picture of the person."""
    query, gallery = manifest.select("query"), manifest.select("gallery")
    if not (gallery.labels != UNLABELLED).any():  # distractors only: queries are matched with each other
        return ()
    cameras: dict[int, set[int]] = {}
    for label, camera in zip(gallery.labels.tolist(), gallery.cameras.tolist(), strict=True):
        cameras.setdefault(label, set()).add(camera)
    by_camera = _knows_cameras(manifest)
    rows = zip(query.paths, query.labels.tolist(), query.cameras.tolist(), strict=True)
    return tuple(
        path for path, label, camera in rows if not cameras.get(label, set()) - ({camera} if by_camera else set())
    )


def _knows_cameras(manifest: Manifest) -> bool:
    return len(np.unique(manifest.cameras)) > 1


def _rows(counts: dict[str, Counts], published: dict[str, Counts] | None) -> list[str]:
    lines = [f"{'':8}" + "".join(f"{column:>22}" for column in Counts._fields)]
    for role in counts:
        cells = [_cell(role, column, counts, published) for column in Counts._fields]
        lines.append(f"{role:8}" + "".join(f"{cell:>22}" for cell in cells))
    lines.append("(published)" if published else "(no published numbers to compare with)")
    return lines


def _cell(role: str, column: str, counts: dict[str, Counts], published: dict[str, Counts] | None) -> str:
    have, expected = getattr(counts[role], column), (published or {}).get(role)
    return f"{have:,} ({getattr(expected, column):,})" if expected else f"{have:,}"


def _finding(noun: str, what: str, total: int | None, items: Sequence[str]) -> list[str]:
    of = f" of {total:,}" if total is not None else ""
    head = f"{'ok' if not items else '->'} {len(items):,}{of} {noun} {what}"
    more = [f"      ... and {len(items) - SHOWN:,} more"] if len(items) > SHOWN else []
    return [head, *(f"      {item}" for item in items[:SHOWN]), *more]
