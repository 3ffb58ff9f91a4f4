"""What an engine has in the place of a network when pixels are all that is asked of it. Needs PyTorch."""

from dataclasses import dataclass

import torch
from network import SIDE_PX


@dataclass(frozen=True)
class Rows:
    """Images as outputs: UINT8 [N, 300, 300, 3] RGB in ``flat``, which is the one of ``views``."""

    flat: torch.Tensor

    @property
    def views(self) -> tuple[torch.Tensor, ...]:
        """The one output."""
        return (self.flat,)


class Pixels:
    """Images in, the same images out.

    Attributes:
        outputs: Type and shape, without the batch, of the one output.
    """

    outputs = (("uint8", SIDE_PX, SIDE_PX, 3),)

    def __init__(self, max_batch_size: int) -> None:
        """Reserve nothing yet."""
        self.max_batch_size = max_batch_size

    def host_outputs(self, *, pinned: bool) -> dict[int, Rows]:
        """Give memory of the host for every batch size, page-locked or not: the same for all."""
        memory = torch.empty([self.max_batch_size, SIDE_PX, SIDE_PX, 3], dtype=torch.uint8, pin_memory=pinned)
        return {size: Rows(memory[:size]) for size in range(1, self.max_batch_size + 1)}

    def __call__(self, images: torch.Tensor, sizes: torch.Tensor) -> Rows:
        """UINT8 [N, 300, 300, 3] -> the same; sizes, INT32 [N, 2], are left alone."""
        return Rows(images)
