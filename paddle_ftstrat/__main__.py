"""`python -m paddle_ftstrat`, the same as the console script `ftstrat`."""

import sys

from paddle_ftstrat.tools import cli

if __name__ == "__main__":
    sys.exit(cli.main())
