"""``python -m pymdc``: the command line."""

import sys

from pymdc._cli import main

if __name__ == "__main__":
    sys.exit(main())
