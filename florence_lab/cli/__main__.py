"""`python -m florence_lab.cli`, the same as `florence-lab`. torchrun starts the processes of distributed fine-tuning with it."""

import sys

from . import main

sys.exit(main())
