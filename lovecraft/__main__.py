"""`python -m lovecraft` is `lc`."""

import sys

from lovecraft.cli import main

sys.exit(main())
