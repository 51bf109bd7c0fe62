"""`python -m florence_lab.cli`, the same as `florence-lab`. torchrun starts the processes of distributed fine-tuning with it."""

import sys

from . import main

if __name__ == "__main__":  # processes that are spawned import this module again
    sys.exit(main())
