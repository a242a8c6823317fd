"""The names by which a configuration asks for a loss."""

from __future__ import annotations

from torch import nn

from reid_cckd.losses.contrastive import CRD
from reid_cckd.losses.instance import CosineMimic, CrossEntropy, EmbeddingMimic, HintonKD, ProjectedMimic
from reid_cckd.losses.logits import DIST, DKD
from reid_cckd.losses.maps import AttentionTransfer, FitNetHint
from reid_cckd.losses.margin import AdaDistill, AdaFace
from reid_cckd.losses.objective import Stage
from reid_cckd.losses.partial import PartialMargin
from reid_cckd.losses.ranking import CSD, D3still, DarkRankHard, DarkRankSoft
from reid_cckd.losses.relational import PKT, RKDAngle, RKDDistance, SimilarityPreserving

LOSSES: dict[str, type[nn.Module]] = {
    "cross_entropy": CrossEntropy,
    "kd": HintonKD,
    "cosine_mimic": CosineMimic,
    "l2_mimic": EmbeddingMimic,
    "projected_mimic": ProjectedMimic,
    "rkd_distance": RKDDistance,
    "rkd_angle": RKDAngle,
    "sp": SimilarityPreserving,
    "pkt": PKT,
    "darkrank_hard": DarkRankHard,
    "darkrank_soft": DarkRankSoft,
    "csd": CSD,
    "d3still": D3still,
    "dist": DIST,
    "dkd": DKD,
    "attention": AttentionTransfer,
    "fitnet": FitNetHint,
    "crd": CRD,
    "adadistill": AdaDistill,
    "adaface": AdaFace,
    "partial_margin": PartialMargin,
}

TEACHER_LOSSES = frozenset(name for name, loss in LOSSES.items() if getattr(loss, "needs_teacher", False))

LABEL_LOSSES = frozenset(LOSSES) - TEACHER_LOSSES

# These look at no label: images without one can be learned from too.
LABEL_FREE = frozenset(name for name in TEACHER_LOSSES if not getattr(LOSSES[name], "needs_labels", False))

# Where in the network each belongs.
STAGES: dict[str, Stage] = {name: getattr(loss, "stage", "embedding") for name, loss in LOSSES.items()}
