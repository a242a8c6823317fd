"""Reproduce a table of the paper; see `python tools/reproduce.py --help`."""

import sys

from reid_cckd.commands.reproduce import main

sys.exit(main())
