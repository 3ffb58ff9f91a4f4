"""JPEG files and raw frames -> the network's input, on a GPU. Needs PyTorch; for files, nvImageCodec and nvJPEG."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from kernels import Kernels
from PIL import Image

SIDE_PX = 300
"""Side of the network's input."""
MAX_DIFFERENCE = 3
"""Of 255, by which a decoder's pixels may differ from PIL's: rounding, and no other arithmetic."""
MAX_SPARE_PX = 1 << 21
"""Memory of larger images is given back."""
_THREADS = 320
"""Of a block: one for each column."""
_ROWS_PER_BLOCK = 8


class HardwareDecoder:
    """The GPU's engine for baseline JPEG files."""

    def __init__(self, device: torch.device) -> None:
        """Start it, and try it on a picture.

        Raises:
            ImportError: nvImageCodec is not installed.
            RuntimeError: There is no such engine, or its pixels are not PIL's.
        """
        from nvidia import nvimgcodec

        self._code_stream = nvimgcodec.CodeStream
        self._params = nvimgcodec.DecodeParams(apply_exif_orientation=False, color_spec=nvimgcodec.ColorSpec.SRGB)
        backend = nvimgcodec.Backend(nvimgcodec.BackendKind.HW_GPU_ONLY)
        self._decoder = nvimgcodec.Decoder(device_id=device.index, backends=[backend])
        self._check(device)

    def decode(self, files: list[np.ndarray], spare: list) -> list:
        """UINT8 [bytes] each -> images in the GPU's memory, or None for files that the engine does not take.

        They are complete on PyTorch's current stream.

        Args:
            files: The files.
            spare: Images of earlier calls: their memory is used again, and those of this call are left there. The
                engine writes at once, without waiting for the stream, so nobody may still read them.
        """
        streams = [self._code_stream(file) for file in files]
        stream = torch.cuda.current_stream().cuda_stream
        n = len(files)
        reused = spare[:n] if len(spare) >= n else None
        images = self._decoder.decode(streams, images=reused, params=self._params, cuda_stream=stream)
        small = [one for one in images if one is not None and one.width * one.height <= MAX_SPARE_PX]
        spare[:] = small + (spare[n:] if reused else [])
        return images

    def _check(self, device: torch.device) -> None:
        ramp = np.linspace(0, 255, 160 * 120 * 3).reshape(120, 160, 3).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(np.roll(ramp, 40, 1)).save(file, "JPEG", quality=90)
        (image,) = self.decode([np.frombuffer(file.getvalue(), np.uint8)], [])
        if image is None:
            raise RuntimeError("this GPU has no engine for JPEG files, or nvJPEG is not installed")
        torch.cuda.synchronize(device)
        difference = np.abs(np.asarray(image.cpu()).astype(int) - np.asarray(Image.open(file)).astype(int)).max()
        if difference > MAX_DIFFERENCE:
            raise RuntimeError(
                f"its pixels differ from PIL's by {difference} of 255, expected {MAX_DIFFERENCE} or less"
            )


class Resizer:
    """PIL's bilinear resize on a GPU; see ``resize.cu``."""

    def __init__(self, device: torch.device) -> None:
        """Compile the kernels."""
        self.device = device
        self._kernels = Kernels(Path(__file__).with_name("resize.cu"), device)

    @staticmethod
    def source_of(image: object) -> tuple[int, int, int, int]:
        """Address, bytes from row to row, width and height of an RGB image on the GPU: UINT8 [height, width, 3]."""
        layout = image.__cuda_array_interface__
        height, width, channels = layout["shape"]
        if channels != 3:
            raise ValueError(f"got an image of {channels} channels, expected 3")
        strides = layout.get("strides")
        return layout["data"][0], strides[0] if strides else width * channels, width, height

    def __call__(
        self, sources: Sequence[tuple[int, int, int, int]], targets: Sequence[int], resized: torch.Tensor
    ) -> None:
        """Resize images on the current stream.

        Args:
            sources: What :meth:`source_of` gives of each.
            targets: The place of each in ``resized``.
            resized: UINT8 [places, 300, 300, 3].
        """
        n = len(sources)
        table = np.array([(*source, 0, target) for source, target in zip(sources, targets, strict=True)], np.int64)
        rows = table[:, 3].copy()
        table[1:, 4] = np.cumsum(rows)[:-1]
        # From page-locked memory, since copies from any other would wait for what is under way on the stream.
        pinned = torch.from_numpy(np.concatenate([table[:, :5].ravel(), table[:, 5]])).pin_memory()
        on_gpu = pinned.to(self.device, non_blocking=True)
        images, places = on_gpu[: n * 5], on_gpu[n * 5 :]
        max_taps = 2 * math.ceil(max(1.0, table[:, 2:4].max() / SIDE_PX)) + 1
        first, count = torch.empty([2, n, 2, SIDE_PX], dtype=torch.int32, device=self.device)
        weights = torch.empty([n, 2, max_taps, SIDE_PX], dtype=torch.int32, device=self.device)
        between = torch.empty([int(rows.sum()), SIDE_PX, 3], dtype=torch.uint8, device=self.device)
        launch = self._kernels.launch
        launch("resize_weights", (n, 2), _THREADS, images, max_taps, first, count, weights)
        groups = -(-int(rows.max()) // _ROWS_PER_BLOCK)
        arguments = (first, count, weights, between)
        launch("resize_columns", (groups, n), _THREADS, images, max_taps, _ROWS_PER_BLOCK, *arguments)
        launch("resize_rows", (SIDE_PX, n), _THREADS, images, max_taps, *arguments, places, resized)
