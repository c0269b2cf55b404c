"""From logits to labels: which class every pixel is, chosen alike wherever that is done, here or on a device.

Legend: B batch, K classes, H height, W width (of volumes, depth before them).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from export.errors import NotHere


def finite(logits_BKHW: Any) -> Any:
    """The logits themselves.

    Raises:
        NotHere: if one is NaN or infinite.
    """
    if not np.isfinite(logits_BKHW).all():
        raise NotHere("its logits are not finite (NaN or infinity)")
    return logits_BKHW


def labels_from_logits(logits_BKHW: Any) -> Any:
    """The class of every pixel (BHW uint8): of equal logits the first; a single logit is a sigmoid's, on above 0."""
    if logits_BKHW.shape[1] == 1:
        return (logits_BKHW[:, 0] > 0).astype(np.uint8)
    return logits_BKHW.argmax(1).astype(np.uint8)
