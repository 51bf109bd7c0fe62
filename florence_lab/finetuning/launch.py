"""Fine-tuning in several processes."""

from __future__ import annotations

import os
import sys


def launch_processes() -> None:
    """Replace this process by `torchrun`, which starts the same command once for each device.

    `NPROC_PER_NODE` gives the number of devices, `NNODES`, `NODE_RANK`, `MASTER_ADDR` and `MASTER_PORT` the rest, as in
    ms-swift.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run"]
    for name in ("nproc_per_node", "nnodes", "node_rank", "master_addr", "master_port"):
        if value := os.environ.get(name.upper()):
            launcher += [f"--{name}", value]
    os.execv(sys.executable, [*launcher, "-m", "florence_lab.cli", *sys.argv[1:]])
