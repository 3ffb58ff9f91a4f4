"""Triton python backend: encoded images -> what the detector takes. Needs NumPy and Pillow only.

With the parameter ``decode_on_gpu``, the instances on a GPU share a process that decodes and resizes there what the GPU
takes; see ``engine.py`` of ``ssd``. Everything else is decoded here, and so is all without such a process.
"""

import importlib.util
import json
import threading
from concurrent.futures import Future

import triton_python_backend_utils as pb_utils
from answering import Preprocessing, attempt
from encoded import EncodedImages
from engine_client import NEEDED_PACKAGES, EngineClient, EngineLostError
from protocol import FILE, WITHOUT_DECODER


class TritonPythonModel(EncodedImages, Preprocessing):
    """Input IMAGE (encoded); outputs ``image`` and ``original_size``."""

    def initialize(self, args):
        """Connect to the engine, if there is to be one."""
        super().initialize(args)
        if self.parameters.get("decode_on_gpu", {}).get("string_value") != "yes":
            return
        try:
            self.engine = _engine(args)
        except (OSError, RuntimeError) as error:
            # The first of a GPU's instances says it for all of them.
            if args["model_instance_name"].endswith("_0"):
                self._say_where(error)

    def finalize(self):
        """Let the engine end with its last instance."""
        super().finalize()
        if self.engine is not None:
            self.engine.close()

    def load(self, elements):
        """See the base class; the GPU decodes what it takes, and the threads the rest meanwhile."""
        loading = [self.pool.submit(attempt, one.load) if one.kind is None else None for one in elements]
        there = [index for index, one in enumerate(elements) if one.kind is not None]
        for index, pixels in zip(there, self._decode([elements[index].data for index in there]), strict=True):
            loading[index] = self.pool.submit(attempt, elements[index].load) if pixels is None else pixels
        return [one.result() if isinstance(one, Future) else one for one in loading]

    def _decode(self, files):
        """Give the pixels of each file as the GPU decodes it; None for what is to be decoded here."""
        pixels = []
        runs = list(self.engine.jobs(list(map(len, files)))) if files else []
        for run in runs:
            decoded = self._decode_run(files[run])
            # What the engine answers lies in memory that its next answer overwrites.
            pixels += decoded if len(runs) == 1 else [None if one is None else one.copy() for one in decoded]
        return pixels

    def _decode_run(self, files):
        if not self.engine.decodes:  # lost since the files were checked
            return [None] * len(files)
        try:
            (decoded,), undone = self.engine.ask([(FILE, data, (0, 0)) for data in files])
        except EngineLostError as error:
            self.log.write("failed", [], str(error))
            # Meanwhile everything is decoded here.
            threading.Thread(target=self._reconnect, daemon=True).start()
            return [None] * len(files)
        failed = set(undone.tolist())
        return [None if index in failed else one for index, one in enumerate(decoded)]

    def _reconnect(self):
        try:
            self.engine.reconnect()
        except (OSError, RuntimeError) as error:
            # That one has a line of its own in the log, for all instances.
            if str(error) != WITHOUT_DECODER:
                self._say_where(error)

    @staticmethod
    def _say_where(reason):
        pb_utils.Logger.log_warn(f"ssd_preprocess: all files are decoded by the CPU: {reason}")


def _engine(args):
    """Connect to the engine of this instance's GPU.

    Raises:
        RuntimeError: There is none, with the reason.
    """
    if args["model_instance_kind"] != "GPU":
        raise RuntimeError("no GPU")
    if not (_is_installed("torch") and _is_installed("nvidia.nvimgcodec")):
        raise RuntimeError(f"'pip install {NEEDED_PACKAGES}' for this server's Python lets the GPU decode")
    batch_size = json.loads(args["model_config"])["max_batch_size"]
    return EngineClient({"device": f"cuda:{args['model_instance_device_id']}", "batch_sizes": [batch_size]})


def _is_installed(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False
