"""Train a teacher or a student; see `python tools/train.py --help`."""

import sys

from reid_cckd.commands.train import main

sys.exit(main())
