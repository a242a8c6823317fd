"""Pure functions: embeddings in, numbers out. Needs numpy and torch only.

Scores are cosine similarities (higher is closer), metrics are fractions in [0, 1].
"""

from reid_cckd.evaluation.approximate import ApproximateResult, search_approximately
from reid_cckd.evaluation.classification import ClassificationResult, evaluate_classification
from reid_cckd.evaluation.cleaning import clean_probes
from reid_cckd.evaluation.distillation import DistillationResult, evaluate_distillation
from reid_cckd.evaluation.expansion import expand_queries
from reid_cckd.evaluation.identification import IdentificationResult, evaluate_identification
from reid_cckd.evaluation.multi_query import pool_queries
from reid_cckd.evaluation.neighbours import rank_gallery
from reid_cckd.evaluation.open_set import OpenSetResult, evaluate_open_set
from reid_cckd.evaluation.prediction import (
    Prediction,
    pair_rate,
    predict_identification,
    predict_pairs,
    predict_retrieval,
    product_rate,
)
from reid_cckd.evaluation.recall import RecallResult, evaluate_recall
from reid_cckd.evaluation.reranking import Reranking
from reid_cckd.evaluation.retrieval import RetrievalResult, evaluate_retrieval
from reid_cckd.evaluation.seeds import SeedDifference, compare_seeds
from reid_cckd.evaluation.sharded import evaluate_sharded, expand_sharded
from reid_cckd.evaluation.significance import Comparison, bootstrap_interval, compare
from reid_cckd.evaluation.single_shot import SingleShotResult, evaluate_single_shot
from reid_cckd.evaluation.templates import pool_templates
from reid_cckd.evaluation.verification import VerificationResult, evaluate_pairs, evaluate_verification

__all__ = [
    "ApproximateResult",
    "ClassificationResult",
    "Comparison",
    "DistillationResult",
    "IdentificationResult",
    "OpenSetResult",
    "Prediction",
    "RecallResult",
    "Reranking",
    "RetrievalResult",
    "SeedDifference",
    "SingleShotResult",
    "VerificationResult",
    "bootstrap_interval",
    "clean_probes",
    "compare",
    "compare_seeds",
    "evaluate_classification",
    "evaluate_distillation",
    "evaluate_identification",
    "evaluate_open_set",
    "evaluate_pairs",
    "evaluate_recall",
    "evaluate_retrieval",
    "evaluate_sharded",
    "evaluate_single_shot",
    "evaluate_verification",
    "expand_queries",
    "expand_sharded",
    "pair_rate",
    "pool_queries",
    "pool_templates",
    "predict_identification",
    "predict_pairs",
    "predict_retrieval",
    "product_rate",
    "rank_gallery",
    "search_approximately",
]
