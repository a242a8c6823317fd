"""Write a data set in another format; see `python tools/prepare.py --help`."""

import sys

from reid_cckd.commands.prepare import main

sys.exit(main())
