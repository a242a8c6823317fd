"""The hall: the only place where a name in a configuration becomes an object."""

from reid_cckd.build.data import fingerprint, image_dataset, plain_loader, read_manifest
from reid_cckd.build.networks import Loaded, build_network, load_network, load_teacher, place, precision, timm_network
from reid_cckd.build.numbering import Numbering
from reid_cckd.build.objective import build_kernel, build_objective
from reid_cckd.build.sampling import build_sampler
from reid_cckd.build.trainer import build_trainer, rehearse

__all__ = [
    "Loaded",
    "Numbering",
    "build_kernel",
    "build_network",
    "build_objective",
    "build_sampler",
    "build_trainer",
    "fingerprint",
    "image_dataset",
    "load_network",
    "load_teacher",
    "place",
    "plain_loader",
    "precision",
    "read_manifest",
    "rehearse",
    "timm_network",
]
