"""The network with its post-processing on one device: images in, detections out, without a stop in between.

The network is a TorchScript or a TensorRT plan. On a GPU, network and post-processing are captured as a CUDA graph for
each batch size, and the kernels of ``postprocess.cu`` find the detections. On a CPU, and for thresholds that the
kernels do not take, the TorchScript of ``ssd_postprocess`` finds them. Needs PyTorch, and TensorRT for a plan.
"""

import bisect
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from plan import Plan

SIDE_PX = 300
MAX_TOPK, MAX_DETECTIONS = 400, 1024
"""What fits in the shared memory of a block; see ``postprocess.cu``."""
WARM_UP_RUNS = 3
"""cuDNN chooses its algorithms in the first runs: a graph is captured after them."""
_THREADS = 256


class Detections:
    """The outputs of a batch in one piece of memory, so that they leave the GPU in one copy.

    Attributes:
        flat: FP32 [values]: what the others are views of.
        views: ``num_detections`` INT32 [N, 1], ``detection_boxes`` FP32 [N, K, 4], ``detection_scores`` FP32 [N, K] and
            ``detection_classes`` INT32 [N, K].
    """

    def __init__(self, batch: int, detections: int, device: torch.device, *, pinned: bool = False) -> None:
        """Reserve memory.

        Args:
            batch: N.
            detections: K.
            device: Where.
            pinned: Whether it is page-locked, so that a GPU writes to it by itself.
        """
        # Boxes come first: the kernel writes each at once, at a multiple of its 16 bytes.
        sizes = [batch * values for values in (4 * detections, detections, detections, 1)]
        self.flat = torch.zeros(sum(sizes), dtype=torch.float32, device=device, pin_memory=pinned)
        boxes, scores, classes, number = self.flat.split(sizes)
        self.views = (
            number.view(torch.int32).view(batch, 1),
            boxes.view(batch, detections, 4),
            scores.view(batch, detections),
            classes.view(torch.int32).view(batch, detections),
        )


class Network:
    """A detector and its post-processing. One batch runs at a time; batches follow each other on one stream."""

    def __init__(self, detector: Path, postprocess: Path, device: torch.device, batch_sizes: Sequence[int]) -> None:
        """Load both, and capture graphs.

        Args:
            detector: TorchScript, or a plan for this GPU with its metadata beside it: UINT8 [N, 300, 300, 3] ->
                ``loc``, ``conf``.
            postprocess: TorchScript with its thresholds as attributes.
            device: Where.
            batch_sizes: Batches that run as a graph; others are padded.
        """
        self.device = device
        self.detector = _load_detector(detector, device)
        self.postprocess = torch.jit.load(postprocess, map_location=device)
        self.detections: int = self.postprocess.detections_per_img
        k = self.detections
        self.outputs = (("int32", 1), ("float32", k, 4), ("float32", k), ("int32", k))
        self.batch_sizes = sorted(batch_sizes)
        self.kernels = None
        self.graphs: dict[int, tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor, Detections]] = {}
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = False  # FP32 means FP32
        if device.type == "cuda" and self.postprocess.topk_candidates <= MAX_TOPK and self.detections <= MAX_DETECTIONS:
            self.kernels = _PostprocessKernels(self.postprocess, device, self.batch_sizes[-1])
            self._capture()

    def host_outputs(self, *, pinned: bool) -> dict[int, Detections]:
        """Reserve memory of the host for the outputs of each batch size, page-locked or not."""
        cpu = torch.device("cpu")
        return {size: Detections(size, self.detections, cpu, pinned=pinned) for size in self.batch_sizes}

    def __call__(self, images: torch.Tensor, sizes: torch.Tensor) -> Detections:
        """Detect on the current stream.

        Args:
            images: UINT8 [N, 300, 300, 3] RGB.
            sizes: INT32 [N, 2], width and height in pixels.

        Returns:
            Of N images or more; valid until the next call.
        """
        n = len(images)
        if not self.graphs:
            return self._detect_on_host(images, sizes)
        size = self.batch_sizes[bisect.bisect_left(self.batch_sizes, n)]
        graph, static_images, static_sizes, outputs = self.graphs[size]
        static_images[:n].copy_(images)
        static_sizes[:n].copy_(sizes)
        graph.replay()
        return outputs

    def _detect_on_host(self, images: torch.Tensor, sizes: torch.Tensor) -> Detections:
        with torch.inference_mode(), torch.jit.optimized_execution(False):
            found = self.postprocess(*self.detector(images), sizes)
        outputs = Detections(len(images), self.detections, self.device)
        for view, value in zip(outputs.views, found, strict=True):
            view.copy_(value)
        return outputs

    def _capture(self) -> None:
        """Capture a graph for each batch size, all in one memory pool: they never run at the same time."""
        pool = None
        with torch.inference_mode(), torch.cuda.device(self.device):
            for size in reversed(self.batch_sizes):
                images = torch.zeros([size, SIDE_PX, SIDE_PX, 3], dtype=torch.uint8, device=self.device)
                sizes = torch.ones([size, 2], dtype=torch.int32, device=self.device)
                outputs = Detections(size, self.detections, self.device)
                stream = torch.cuda.Stream()
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream):
                    for _ in range(WARM_UP_RUNS):
                        self.kernels(*self.detector(images), sizes, outputs)
                torch.cuda.current_stream().wait_stream(stream)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=pool):
                    self.kernels(*self.detector(images), sizes, outputs)
                pool = pool or graph.pool()
                self.graphs[size] = (graph, images, sizes, outputs)


def _load_detector(path: Path, device: torch.device) -> Callable[[torch.Tensor], tuple[torch.Tensor, ...]]:
    """Load a detector for the current device.

    Raises:
        RuntimeError: A plan does not fit.
    """
    if path.suffix != ".plan":
        script = torch.jit.load(path, map_location=device)
        return script.float() if device.type == "cpu" else script
    if device.type != "cuda":
        raise RuntimeError(f"{path.name} runs on a GPU, got {device}")
    metadata = path.with_suffix(".engine.json")
    if not metadata.is_file():
        raise RuntimeError(f"{path.name} has no metadata, expected {metadata.name}: build it with 'ssd-triton engine'")
    return Plan(path, json.loads(metadata.read_bytes())["runtime"])


class _PostprocessKernels:
    """``postprocess.cu`` with the thresholds and the default boxes of a TorchScript post-processing."""

    def __init__(self, script: torch.jit.ScriptModule, device: torch.device, max_batch_size: int) -> None:
        from kernels import Kernels

        self.topk = script.topk_candidates
        definitions = {
            "TOPK": self.topk,
            "DETECTIONS": script.detections_per_img,
            "SCORE_THRESH": f"{float(script.score_thresh)!r}f",
            "NMS_THRESH": f"{float(script.nms_thresh)!r}f",
        }
        self.kernels = Kernels(Path(__file__).with_name("postprocess.cu"), device, definitions)
        self.defaults = script.defaults_cxcywh.t().contiguous()
        self.max_batch_size = max_batch_size
        self.memory: tuple[torch.Tensor, ...] = ()

    def __call__(self, loc: torch.Tensor, conf: torch.Tensor, sizes: torch.Tensor, outputs: Detections) -> None:
        """FP32 ``loc`` [N, 4, boxes] and ``conf`` [N, labels, boxes], contiguous -> ``outputs``."""
        images, labels, boxes = conf.shape
        loc, conf = loc.float().contiguous(), conf.float().contiguous()
        if not self.memory:
            self.memory = self._reserve(labels, boxes)
        peak, total, kept, kept_boxes = self.memory
        launch = self.kernels.launch
        launch("softmax_parts", (-(-boxes // _THREADS), images), _THREADS, conf, labels, boxes, peak, total)
        arguments = (loc, conf, self.defaults, labels, boxes, peak, total, kept, kept_boxes)
        launch("suppress", (labels - 1, images), _THREADS, *arguments)
        launch("best_detections", (images, 1), 4 * _THREADS, kept, kept_boxes, sizes, labels - 1, *outputs.views)

    def _reserve(self, labels: int, boxes: int) -> tuple[torch.Tensor, ...]:
        rows = [self.max_batch_size, labels - 1, self.topk]
        device = self.defaults.device
        return (
            *torch.empty([2, self.max_batch_size, boxes], dtype=torch.float32, device=device),
            torch.empty(rows, dtype=torch.int64, device=device),
            torch.empty([*rows, 4], dtype=torch.float32, device=device),
        )
