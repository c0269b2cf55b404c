"""A cascade is two networks that fit together, the second told what the first found."""

from typing import Any

import pytest
import torch

from compress.errors import SegpressError, WeightsError
from compress.storage.description import build_net, shape_of

COARSE, FINE = {"unet": {"width": 2, "depth": 2}}, {"unet": {"width": 2, "depth": 1}}


def cascade(**options: Any) -> dict[str, dict[str, Any]]:
    return {"cascade": {"classes": 2, "coarse": COARSE, "fine": FINE, **options}}


def test_the_fine_network_sees_what_the_coarse_one_found() -> None:
    torch.manual_seed(0)
    net = build_net(cascade(classes=3, masked=True)).eval()
    for parameter in net.coarse.head.parameters():
        torch.nn.init.zeros_(parameter)
    net.coarse.head.bias = torch.nn.Parameter(torch.tensor([0.0, 2.0, 0.0]))
    seen: list[torch.Tensor] = []
    net.fine.register_forward_pre_hook(lambda _, given: seen.extend(given))
    image = torch.randn(1, 1, 16, 16)
    net(image)
    chance = torch.tensor([0.0, 2.0, 0.0]).softmax(0)[1:]
    torch.testing.assert_close(seen[0][:, 1:], chance.reshape(1, 2, 1, 1).expand(1, 2, 16, 16))
    torch.testing.assert_close(seen[0][:, :1], image * chance.sum())


def test_in_training_it_answers_with_both_at_full_size() -> None:
    net = build_net(cascade(fine={"unetpp": {"width": 2, "level": 2}})).train()
    answers = net(torch.randn(2, 1, 16, 24))
    assert [tuple(answer.shape) for answer in answers] == [(2, 2, 16, 24)] * 3


@pytest.mark.parametrize(
    ("size", "wanted"), [((16, 24), None), ((18, 24), "pad to 24x24"), ((15, 9), "pad to 16x16"), ((64, 65), "64x72")]
)
def test_a_size_must_suit_both(size: tuple[int, int], wanted: str | None) -> None:
    fault = shape_of(cascade()).check_size(size)
    assert fault is None if wanted is None else str(fault).endswith(wanted)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"coarse": {"unett": {}}}, "coarse: no network 'unett'; one of"),
        ({"fine": {"unet": {"widht": 2}}}, "fine: unet: widht: Unexpected keyword argument"),
        ({"fine": {"unet": {"classes": 2}}}, "fine: unet: classes is the cascade's to say; leave it out here"),
        ({"fine": {"vnet": {}}}, "coarse takes 2-D input and fine 3-D; both must be alike"),
    ],
)
def test_networks_that_do_not_fit_together_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(WeightsError, match=why):
        shape_of(cascade(**options))


def test_a_coarse_network_that_crops_is_refused() -> None:
    net = build_net(cascade(coarse={"unet": {"width": 2, "depth": 1, "padded": False}})).eval()
    with pytest.raises(SegpressError, match="must answer at the size of its input"):
        net(torch.randn(1, 1, 64, 64))
