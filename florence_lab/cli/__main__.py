"""`python -m florence_lab.cli`, which `torchrun` starts for each device."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
