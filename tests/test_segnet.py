"""SegNet: what its last layer may be."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from compress.networks.segnet import SegNet


def test_a_single_logit_behind_a_relu_is_refused() -> None:
    with pytest.raises(ValidationError, match="never negative: set last to conv"):
        SegNet(classes=1, last="conv_norm_relu")


def test_logits_are_negative_too_unless_a_relu_is_asked_for() -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert SegNet(classes=2, width=4)().eval()(image).min() < 0
        assert SegNet(classes=2, width=4, last="conv_norm_relu")().eval()(image).min() >= 0
