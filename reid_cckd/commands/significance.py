"""How sure a subject's scores are, and whether it is better than another: printed, and for the report."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from reid_cckd.commands.subjects import Subject
from reid_cckd.errors import UserError
from reid_cckd.evaluation import RecallResult, RetrievalResult, bootstrap_interval, compare

Result = RetrievalResult | RecallResult
MEANS = {"ap": "mean_ap", "inp": "mean_inp", "ap_at_r": "map_at_r", "precision_at_r": "r_precision"}


def intervals(subject: Subject, result: Result, resamples: int) -> dict[str, list[float]]:
    """95 % bootstrap intervals over people or classes, whose queries are not independent; printed too."""
    first, who = ("recall@1", "classes") if isinstance(result, RecallResult) else ("rank1", "people")
    values = {MEANS[name]: getattr(result, name) for name in result.per_query}
    values[first] = np.where(result.valid, result.first_rank == 1, np.nan)
    options: dict[str, Any] = {"resamples": resamples, "groups": subject.query.labels}
    found = {name: list(bootstrap_interval(rows, **options)) for name, rows in values.items()}
    for name, (low, high) in found.items():
        print(f"{name}: 95 % interval {100 * low:.2f} ... {100 * high:.2f} % ({resamples:,} resamples of {who})")
    return found


def comparison(subject: Subject, result: Result, other: Subject, baseline: Result) -> dict[str, Any]:
    """Is the subject better than the other? Printed too.

    Raises:
        UserError: the two did not score the same queries against the same gallery.
    """
    refuse_other_images(subject, other)
    try:
        found = compare(baseline, result, groups=subject.query.labels)
    except ValueError as error:
        raise UserError(f"{subject.name} and {other.name}: {error}") from error
    what, who = ("MAP@R", "classes") if isinstance(result, RecallResult) else ("mAP", "people")
    print(
        f"{subject.name} against {other.name}: {what} {100 * found.difference:+.2f} points, 95 % interval "
        f"{100 * found.low:+.2f} ... {100 * found.high:+.2f}; {found.num_better:,} queries better, "
        f"{found.num_worse:,} worse of {found.num_queries:,}; p = {found.p_value:.4f} "
        f"(paired sign flips of {found.num_groups:,} {who}, one-sided)"
    )
    return {"other": other.name, "other_sha256": other.query.source, **asdict(found)}


def refuse_other_images(subject: Subject, other: Subject) -> None:
    """A paired comparison needs the same images in the same order, of the same people and cameras."""
    for role, ours, theirs in (
        ("query", subject.query, other.query),
        ("gallery", subject.gallery, other.gallery),
    ):
        if ours.paths.tolist() != theirs.paths.tolist():
            raise UserError(
                f"{subject.name} and {other.name} have different {role} images ({len(ours):,} and {len(theirs):,}), or "
                f"the same in another order; extract both from the same data set."
            )
        if ours.labels.tolist() != theirs.labels.tolist() or ours.cameras.tolist() != theirs.cameras.tolist():
            raise UserError(f"{subject.name} and {other.name} give the same {role} images other labels or cameras.")
