"""What is sent to another process of this program, and read there."""

from __future__ import annotations

import pickle
import sys
from typing import Any

from compress.networks.foreign.torchvision_import import torchvision
from export.errors import REFUSALS, first_line


class CannotBeSent(Exception):
    """What another process cannot make again, such as a network whose class this one alone has read: why."""


def packed(value: Any) -> bytes:
    """What is to be sent, and whether torchvision has to be there before it can be read: its classes import it.

    Raises:
        CannotBeSent: if it cannot be written.
    """
    try:
        return pickle.dumps(("torchvision" in sys.modules, pickle.dumps(value)))
    except (pickle.PicklingError, *REFUSALS) as error:
        raise CannotBeSent(first_line(error)) from None


def unpacked(sent: bytes) -> Any:
    """In the other process: what `packed` was given.

    Raises:
        CannotBeSent: if it cannot be read there.
    """
    try:
        with_torchvision, value = pickle.loads(sent)
        if with_torchvision:
            torchvision()
        return pickle.loads(value)
    except (ImportError, pickle.UnpicklingError, *REFUSALS) as error:
        raise CannotBeSent(f"{type(error).__name__}: {first_line(error)}") from None
