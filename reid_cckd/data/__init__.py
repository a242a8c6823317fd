"""Images on disk: layouts, decoding, augmentation, caching, checking and synthetic pedestrians."""

from reid_cckd.data.augment import Augment, build_augment, limit_threads
from reid_cckd.data.batched import BatchedAugment, build_batched_augment
from reid_cckd.data.check import CheckReport, check_manifest
from reid_cckd.data.convert import Converted, convert
from reid_cckd.data.dataset import ImageDataset, collate
from reid_cckd.data.images import BadImage, DamagedImageError, read_image
from reid_cckd.data.labelled import refuse_unlabelled
from reid_cckd.data.layouts import LAYOUTS, read_market1501, read_msmt17
from reid_cckd.data.manifest import ROLES, UNLABELLED, Counts, Manifest
from reid_cckd.data.on_device import DeviceImages
from reid_cckd.data.pairs import Pairs, read_pairs
from reid_cckd.data.sources import Source
from reid_cckd.data.superclasses import read_superclasses
from reid_cckd.data.synthetic import TWINS, Numbers, ensure_pedestrians, write_pedestrians, write_twin
from reid_cckd.data.targets import Identities, PackedImages, RecordIO

__all__ = [
    "LAYOUTS",
    "ROLES",
    "TWINS",
    "UNLABELLED",
    "Augment",
    "BadImage",
    "BatchedAugment",
    "CheckReport",
    "Converted",
    "Counts",
    "DamagedImageError",
    "DeviceImages",
    "Identities",
    "ImageDataset",
    "Manifest",
    "Numbers",
    "PackedImages",
    "Pairs",
    "RecordIO",
    "Source",
    "build_augment",
    "build_batched_augment",
    "check_manifest",
    "collate",
    "convert",
    "ensure_pedestrians",
    "limit_threads",
    "read_image",
    "read_market1501",
    "read_msmt17",
    "read_pairs",
    "read_superclasses",
    "refuse_unlabelled",
    "write_pedestrians",
    "write_twin",
]
