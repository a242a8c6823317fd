"""How many images, people and cameras the public data sets hold, as their papers and readers state."""

from __future__ import annotations

from reid_cckd.data.manifest import Counts

_MSMT17 = {"train": Counts(32621, 1041, 15), "query": Counts(11659, 3060, 15), "gallery": Counts(82161, 3060, 15)}

# By the name of a manifest. Gallery ids of Market-1501 include id 0, the distractors; -1 is not counted.
PUBLISHED: dict[str, dict[str, Counts]] = {
    "MSMT17_V1": _MSMT17,
    "MSMT17_V2": _MSMT17,
    "MSMT17": _MSMT17,
    "Market-1501": {"train": Counts(12936, 751, 6), "query": Counts(3368, 750, 6), "gallery": Counts(15913, 751, 6)},
    "DukeMTMC-reID": {"train": Counts(16522, 702, 8), "query": Counts(2228, 702, 8), "gallery": Counts(17661, 1110, 8)},
    "CUHK03-np detected": {
        "train": Counts(7365, 767, 2),
        "query": Counts(1400, 700, 2),
        "gallery": Counts(5332, 700, 2),
    },
    "CUHK03-np labeled": {
        "train": Counts(7368, 767, 2),
        "query": Counts(1400, 700, 2),
        "gallery": Counts(5328, 700, 2),
    },
    "CIFAR-10": {"train": Counts(50000, 10, 1), "test": Counts(10000, 10, 1)},
    "CIFAR-100": {"train": Counts(50000, 100, 1), "test": Counts(10000, 100, 1)},
    "ImageNet-1k": {"train": Counts(1281167, 1000, 1), "test": Counts(50000, 1000, 1)},
    "CUB-200-2011": {"train": Counts(5864, 100, 1), "test": Counts(5924, 100, 1)},
    "Stanford Online Products": {"train": Counts(59551, 11318, 1), "test": Counts(60502, 11316, 1)},
    "In-shop": {"train": Counts(25882, 3997, 1), "query": Counts(14218, 3985, 1), "gallery": Counts(12612, 3985, 1)},
    "MegaFace": {"query": Counts(3530, 80, 1), "gallery": Counts(1000000, 0, 1)},
    "VeRi-776": {"train": Counts(37778, 576, 20), "query": Counts(1678, 200, 19), "gallery": Counts(11579, 200, 19)},
}
