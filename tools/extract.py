"""Keep a network's embeddings of a data set on disk; see `python tools/extract.py --help`."""

import sys

from reid_cckd.commands.extract import main

sys.exit(main())
