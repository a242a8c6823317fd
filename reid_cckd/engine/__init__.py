"""The training loop, checkpoints, extraction, and what a network costs."""

from reid_cckd.engine.checkpoint import file_hash, load_checkpoint, save_checkpoint
from reid_cckd.engine.claims import STALE, claim, is_claimed
from reid_cckd.engine.cost import Count, count, milliseconds_per_image
from reid_cckd.engine.device import autocast, in_bfloat16, pick_device
from reid_cckd.engine.distributed import (
    check_alike,
    exchange_rows,
    local_device,
    on_rank_zero,
    processes,
    rank,
    share_of,
    world_size,
)
from reid_cckd.engine.embeddings import Embeddings, is_embeddings
from reid_cckd.engine.extract import embed_batch, extract, extract_to
from reid_cckd.engine.feed import DirectFeed, Feed
from reid_cckd.engine.interrupt import Interrupted
from reid_cckd.engine.mode import evaluating
from reid_cckd.engine.optim import create_optimizer, create_schedule, moves_rows_apart
from reid_cckd.engine.position import Position
from reid_cckd.engine.protocols import TrainingData
from reid_cckd.engine.teacher_cache import Layout, TeacherCache, build_cache, open_cache
from reid_cckd.engine.teachers import CachedTeacher, OnlineTeacher, TeacherSource
from reid_cckd.engine.trackers import check_trackers, trackers
from reid_cckd.engine.tracking import RunLog
from reid_cckd.engine.trainer import Trainer

__all__ = [
    "STALE",
    "CachedTeacher",
    "Count",
    "DirectFeed",
    "Embeddings",
    "Feed",
    "Interrupted",
    "Layout",
    "OnlineTeacher",
    "Position",
    "RunLog",
    "TeacherCache",
    "TeacherSource",
    "Trainer",
    "TrainingData",
    "autocast",
    "build_cache",
    "check_alike",
    "check_trackers",
    "claim",
    "count",
    "create_optimizer",
    "create_schedule",
    "embed_batch",
    "evaluating",
    "exchange_rows",
    "extract",
    "extract_to",
    "file_hash",
    "in_bfloat16",
    "is_claimed",
    "is_embeddings",
    "load_checkpoint",
    "local_device",
    "milliseconds_per_image",
    "moves_rows_apart",
    "on_rank_zero",
    "open_cache",
    "pick_device",
    "processes",
    "rank",
    "save_checkpoint",
    "share_of",
    "trackers",
    "world_size",
]
