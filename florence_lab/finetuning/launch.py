"""TODO"""

from __future__ import annotations

import os
import sys


def _start_processes() -> None:
    """Become torchrun, which starts this very command once per device, as ms-swift does for NPROC_PER_NODE."""
    launcher = [sys.executable, "-m", "torch.distributed.run"]
    for option in ("nproc_per_node", "nnodes", "node_rank", "master_addr", "master_port"):
        if os.environ.get(option.upper()):
            launcher += [f"--{option}", os.environ[option.upper()]]
    os.execv(sys.executable, [*launcher, "-m", "florence_lab.cli", *sys.argv[1:]])
