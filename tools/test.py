"""Evaluate a checkpoint or saved embeddings; see `python tools/test.py --help`."""

import sys

from reid_cckd.commands.test import main

sys.exit(main())
