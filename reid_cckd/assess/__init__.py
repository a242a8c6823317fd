"""How good a network is on a data set: extraction, exact evaluation, and a verdict that says how it was reached."""

from reid_cckd.assess.chance import GUESSES, Guess, best_guess
from reid_cckd.assess.choice import answer_of, build_judge
from reid_cckd.assess.classification import ClassificationJudge, held_back
from reid_cckd.assess.heads import asks_for_scores, head_judge
from reid_cckd.assess.identification import IdentificationJudge
from reid_cckd.assess.recall import RecallJudge, searchers
from reid_cckd.assess.retrieval import PLAIN, Refinement, RetrievalJudge, evaluate_embeddings, protocol, scores
from reid_cckd.assess.verdict import Judge, Verdict
from reid_cckd.assess.verification import VerificationJudge

__all__ = [
    "GUESSES",
    "PLAIN",
    "ClassificationJudge",
    "Guess",
    "IdentificationJudge",
    "Judge",
    "RecallJudge",
    "Refinement",
    "RetrievalJudge",
    "Verdict",
    "VerificationJudge",
    "answer_of",
    "asks_for_scores",
    "best_guess",
    "build_judge",
    "evaluate_embeddings",
    "head_judge",
    "held_back",
    "protocol",
    "scores",
    "searchers",
]
