"""Who reads not values but where the larger of them lie: unpooling, which brings each maximum back to its place.

On a grid of 8 bits neighbours are often equal, and then a place is chosen that means nothing; in float they hardly
ever are. So places are looked for among values that nothing rounded.
"""

from __future__ import annotations

from operator import getitem

from torch import fx

from export.graph import aten

_COMPARISONS = (
    *(aten.ge.Tensor, aten.gt.Tensor, aten.le.Tensor, aten.lt.Tensor, aten.eq.Tensor, aten.ne.Tensor),
    *(aten.argmax.default, aten.argmin.default),
)
_ON_THE_WAY = (
    *(aten.slice.Tensor, aten.select.int, aten.view.default, aten.reshape.default, aten.permute.default),
    *(aten.maximum.default, aten.minimum.default, aten.unfold.default, aten.pad.default, aten.constant_pad_nd.default),
)
"""What moves values that are compared behind it, or takes the larger ones."""
_WITH_PLACES = (aten.max_pool2d_with_indices.default, aten.max_pool3d_with_indices.default)


def wants_places(reader: fx.Node) -> bool:
    """Whether what reads a tensor only, or also, finds out where its larger values are."""
    if reader.target in _WITH_PLACES:
        return any(user.target is getitem and user.args[1] == 1 and user.users for user in reader.users)
    if reader.target in _COMPARISONS:
        return True
    return reader.target in _ON_THE_WAY and bool(reader.users) and all(map(wants_places, reader.users))
