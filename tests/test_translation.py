"""What torch's ONNX exporter is spared: the same files, byte for byte, as it writes by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from onnxscript import rewriter
from structures import conv
from torch import Tensor, fx, nn
from torch.onnx._internal.exporter import _fx_passes
from zoo import made

import export.to_onnx
from export.to_onnx import to_onnx


class Unlike(nn.Module):
    """Numbers of several types, and what torch's rules for files make simpler."""

    def __init__(self, by: float = 2) -> None:
        super().__init__()
        self.conv, self.by = conv(3, 3), by

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(torch.clamp(self.conv(x), 0, 6)) * self.by
        places = torch.arange(x.shape[-1])
        return torch.cat([x.double() + places, x / (places + 1)], 1).float().reshape(x.shape[0], 6, *x.shape[2:])


NETS = {
    "other types": Unlike,
    "a float": lambda: Unlike(2.5),
    "unet": lambda: made("unet"),
    "norms": lambda: made("two norms"),
}
IMAGE = torch.zeros(1, 3, 32, 32)


@pytest.mark.parametrize("name", NETS)
def test_a_file_is_what_torch_writes_by_itself(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = NETS[name]().eval()
    spared = to_onnx(net, IMAGE, tmp_path / "spared.onnx").path.read_bytes()
    monkeypatch.setattr(export.to_onnx, "spare_what_is_done_again", lambda: None)
    for passes in ("insert_type_promotion_nodes", "decompose_with_registry"):
        monkeypatch.setattr(_fx_passes, passes, getattr(_fx_passes, passes).of_torch)
    rules: tuple[Any, ...] = rewriter._DEFAULT_REWRITE_RULES
    assert sum("try_rewrite" in vars(rule) for rule in rules) > 0.9 * len(rules)
    for rule in rules:
        monkeypatch.delitem(vars(rule), "try_rewrite", raising=False)
    assert to_onnx(net, IMAGE, tmp_path / "whole.onnx").path.read_bytes() == spared


@pytest.mark.parametrize(("name", "again"), [("other types", True), ("unet", False)])
def test_a_network_is_run_again_only_where_numbers_are_of_other_types(
    name: str, again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[fx.GraphModule] = []
    run = _fx_passes.passes.InsertTypePromotion.run
    monkeypatch.setattr(_fx_passes.passes.InsertTypePromotion, "run", lambda each: ran.append(each.module) or run(each))
    to_onnx(NETS[name]().eval(), IMAGE, tmp_path / "net.onnx")
    assert bool(ran) == again
