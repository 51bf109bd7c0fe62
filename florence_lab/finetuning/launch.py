"""Fine-tuning in several processes."""

from __future__ import annotations

import os
import re
import sys

from ..exceptions import ArgumentError, shorten

_VARIABLES = {  # name -> pattern of its values, what they are
    "NPROC_PER_NODE": (r"0*[1-9]\d*|auto|cpu|gpu", "a number of processes from 1, or auto, cpu or gpu"),
    "NNODES": (r"0*[1-9]\d*(:0*[1-9]\d*)?", "a number of machines from 1, or a range such as 1:4"),
    "NODE_RANK": (r"\d+", "the number of this machine, from 0"),
    "MASTER_ADDR": (r"\S+", "the address of the first machine"),
    "MASTER_PORT": (r"\d{1,5}", "a port of the first machine, up to 65535"),
}


def launch_processes() -> None:
    """Replace this process by `torchrun`, which starts the same command once for each device.

    `NPROC_PER_NODE` gives the number of devices, `NNODES`, `NODE_RANK`, `MASTER_ADDR` and `MASTER_PORT` the rest, as in
    ms-swift.

    Raises:
        ArgumentError: if one of the variables has a value that torchrun does not accept.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run"]
    for name, (pattern, meaning) in _VARIABLES.items():
        if value := os.environ.get(name):
            if not re.fullmatch(pattern, value, re.ASCII) or (name == "MASTER_PORT" and int(value) > 65_535):
                raise ArgumentError(f"the environment variable {name} must be {meaning}, got {shorten(value)}")
            launcher += [f"--{name.lower()}", value]
    os.execv(sys.executable, [*launcher, "-m", "florence_lab.cli", *sys.argv[1:]])
