"""`python -m lerax_dist.cli` is `lerax-dist`."""

import sys

from lerax_dist.cli import main

if __name__ == "__main__":
    sys.exit(main())
