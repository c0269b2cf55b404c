"""Lightning Fabric, which says nothing on the terminal."""

from __future__ import annotations

import logging

from lightning_fabric import Fabric

from compress.train.precision import Precision


def fabric_for(how_precise: Precision = "32-true", devices: int | list[int] = 1) -> Fabric:
    """What trains and scores: on a GPU where there is one.

    Args:
        devices: how many, or which; one as a rule (parallel.py has the others).
    """
    # It tells of each network how it is trained; what a person is to know is said by us.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    return Fabric(accelerator="auto", devices=devices, precision=how_precise)
