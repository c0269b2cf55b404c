"""SAUNet's own edges of the image are Sobel's."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from compress.networks.shape_attentive import _sobel


def test_edges_of_the_image_are_those_of_scipy() -> None:
    image = torch.randn(2, 3, 6, 9, generator=torch.Generator().manual_seed(0))
    grey = image.mean(dim=1).numpy()
    wanted = np.stack([sum(np.abs(ndimage.sobel(one, axis=axis, mode="nearest")) for axis in (0, 1)) for one in grey])
    np.testing.assert_allclose(_sobel(image)[:, 0].numpy(), wanted, rtol=1e-5, atol=1e-5)
