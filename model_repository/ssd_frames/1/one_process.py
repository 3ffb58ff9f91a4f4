# Written from ssd/1/one_process.py by the build, do not edit. Digest: 8f1af2ddc32d3c30
"""What ``ssd`` and ``ssd_frames`` have in common where one process detects: requests in, detections out."""

import os
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from answering import Preprocessing, attempt, refusal
from engine_client import MAX_LOSSES, NEEDED_PACKAGES, EngineClient, EngineLostError
from protocol import PIXELS

OUTPUTS = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")
ATTEMPTS = MAX_LOSSES + 2
"""For images: after :data:`MAX_LOSSES` comes an engine without the GPU's decoder, and a file may need another attempt
because the decoder has not taken it."""
BLACK = bytes(300 * 300 * 3)
_NEEDS = (
    f"it needs what 'ssd-triton build' makes, and 'pip install {NEEDED_PACKAGES}' for this server's Python; without "
    "their files in configs/, ssd and ssd_frames are ensembles"
)


class OneProcess(Preprocessing):
    """A model whose instances check requests and leave the rest to the engine of their device.

    Subclasses give :meth:`elements`.
    """

    def initialize(self, args):
        """Connect to the engine."""
        super().initialize(args)
        on_gpu = args["model_instance_kind"] == "GPU"
        models = Path(args["model_repository"]).parent
        parameters = {name: value["string_value"] for name, value in self.parameters.items()}
        try:
            self.engine = EngineClient(
                {
                    "device": f"cuda:{args['model_instance_device_id']}" if on_gpu else "cpu",
                    "detector": str(models / parameters["detector"]),
                    "postprocess": str(models / parameters["postprocess"]),
                    "batch_sizes": [int(size) for size in parameters["batch_sizes"].split(",")],
                }
            )
        except RuntimeError as error:
            raise pb_utils.TritonModelException(f"{error}: {_NEEDS}") from error

    def finalize(self):
        """Let the threads end, and the engine with its last instance."""
        super().finalize()
        self.engine.close()

    def execute(self, requests):
        """Answer every request of a batch."""
        with self.log.failures(requests):
            elements = self.checked(requests)
            detections = self._detect([one for parts in elements if not refusal(parts) for one in parts])
            return self._responses(requests, elements, detections)

    def _responses(self, requests, elements, detections):
        """Give each request its rows of the detections, or an error."""
        responses, row = [], 0
        for request, parts in zip(requests, elements, strict=True):
            reason = refusal(parts)
            if not reason:
                start, row = row, row + len(parts)
                reason = refusal([one.refusal or one for one in parts])
            if reason:
                responses.append(self._refuse(request, reason))
                continue
            tensors = [pb_utils.Tensor(name, rows[start:row]) for name, rows in zip(OUTPUTS, detections, strict=True)]
            responses.append(pb_utils.InferenceResponse(tensors))
        return responses

    def _detect(self, elements):
        """Give the four outputs, a row for each element; elements may be refused only now."""
        if not elements:
            return []
        self._to_pixels([one for one in elements if one.kind is None])
        runs = [elements[run] for run in self.engine.jobs([memoryview(one.data).nbytes for one in elements])]
        if len(runs) <= 1:
            return self._detect_run(elements)
        # What the engine answers lies in memory that its next answer overwrites.
        answers = [[rows.copy() for rows in self._detect_run(run)] for run in runs]
        return [np.concatenate(rows) for rows in zip(*answers, strict=True)]

    def _detect_run(self, elements):
        for _ in range(ATTEMPTS):
            outputs, undone = self._ask(elements)
            if outputs is not None and not len(undone):
                return outputs
            self._to_pixels([elements[index] for index in undone])
        raise RuntimeError(f"no engine has answered in {ATTEMPTS} attempts, their own lines say why")

    def _ask(self, elements):
        """Give the four outputs, or None, and the indices of elements that are to be made pixels before they are sent.

        Of an engine that was lost with them, all: a file that crashes the decoder meets it once.
        """
        try:
            return self.engine.ask([(one.kind, one.data, one.size_px) for one in elements])
        except EngineLostError as error:
            self.log.write("failed", [], str(error))
            was_asked = error.was_asked
        try:
            self.engine.reconnect()
        except RuntimeError as error:
            # Triton answers for a model whose process has ended, and whoever watches the server starts it again.
            self.log.write("failed", [], str(error))
            os._exit(1)
        return None, range(len(elements) if was_asked else 0)

    def _to_pixels(self, elements):
        """Decode or resize here, side by side, what the engine cannot, or what it may have crashed at."""
        raw = [one for one in elements if one.kind != PIXELS]
        for one, pixels in zip(raw, self.pool.map(lambda one: attempt(one.load), raw), strict=True):
            one.refusal = pixels if isinstance(pixels, str) else None
            one.kind, one.data = PIXELS, BLACK if one.refusal else pixels
