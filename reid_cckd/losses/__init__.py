"""Losses: correlation congruence, its kernels and memory, and the losses it is compared with or added to."""

from reid_cckd.losses.contrastive import CRD
from reid_cckd.losses.correlation import CorrelationCongruenceLoss
from reid_cckd.losses.distributed import gather_rows
from reid_cckd.losses.instance import CosineMimic, CrossEntropy, EmbeddingMimic, HintonKD, ProjectedMimic
from reid_cckd.losses.kernels import MMD, Bilinear, GaussianRBF
from reid_cckd.losses.logits import DIST, DKD
from reid_cckd.losses.maps import AttentionTransfer, FitNetHint
from reid_cckd.losses.margin import AdaDistill, AdaFace
from reid_cckd.losses.memory import PairMemory
from reid_cckd.losses.naming import filled, loss_class, pml_miner
from reid_cckd.losses.objective import Objective, Ramp, Share, Term
from reid_cckd.losses.partial import PartialMargin
from reid_cckd.losses.ranking import CSD, D3still, DarkRankHard, DarkRankSoft
from reid_cckd.losses.relational import PKT, RKDAngle, RKDDistance, SimilarityPreserving
from reid_cckd.losses.table import LABEL_FREE, LABEL_LOSSES, LOSSES, STAGES, TEACHER_LOSSES

__all__ = [
    "CRD",
    "CSD",
    "DIST",
    "DKD",
    "LABEL_FREE",
    "LABEL_LOSSES",
    "LOSSES",
    "MMD",
    "PKT",
    "STAGES",
    "TEACHER_LOSSES",
    "AdaDistill",
    "AdaFace",
    "AttentionTransfer",
    "Bilinear",
    "CorrelationCongruenceLoss",
    "CosineMimic",
    "CrossEntropy",
    "D3still",
    "DarkRankHard",
    "DarkRankSoft",
    "EmbeddingMimic",
    "FitNetHint",
    "GaussianRBF",
    "HintonKD",
    "Objective",
    "PairMemory",
    "PartialMargin",
    "ProjectedMimic",
    "RKDAngle",
    "RKDDistance",
    "Ramp",
    "Share",
    "SimilarityPreserving",
    "Term",
    "filled",
    "gather_rows",
    "loss_class",
    "pml_miner",
]
