"""CUDA kernels, compiled when they are loaded, for the GPU at hand.

Needs ``cuda-bindings``, which comes with PyTorch for CUDA: no compiler, and nothing else to install.
"""

import ctypes
from pathlib import Path

import torch
from cuda.bindings import driver, nvrtc


class Kernels:
    """The kernels of one ``.cu`` file on one GPU."""

    def __init__(self, path: Path, device: torch.device, definitions: dict[str, object] | None = None) -> None:
        """Compile and load.

        Args:
            path: The file.
            device: The GPU.
            definitions: Macros that the file needs.

        Raises:
            RuntimeError: It cannot be compiled for this GPU, with the compiler's words.
        """
        with torch.cuda.device(device):
            torch.cuda.current_stream().synchronize()  # makes the GPU's context, which PyTorch shares, the current one
            module = _checked(driver.cuModuleLoadData(_compile(path, device, definitions or {})))
        self._module = module
        self._functions: dict[str, driver.CUfunction] = {}

    def launch(self, name: str, grid: tuple[int, int], block: int, *arguments: torch.Tensor | int) -> None:
        """Start a kernel on PyTorch's current stream.

        Args:
            name: The kernel.
            grid: Blocks.
            block: Threads of a block.
            arguments: Tensors, passed as addresses, and ints of 32 bits.
        """
        if name not in self._functions:
            self._functions[name] = _checked(driver.cuModuleGetFunction(self._module, name.encode()))
        values = tuple(one if isinstance(one, int) else one.data_ptr() for one in arguments)
        types = tuple(ctypes.c_int if isinstance(one, int) else ctypes.c_void_p for one in arguments)
        stream = torch.cuda.current_stream().cuda_stream
        _checked(driver.cuLaunchKernel(self._functions[name], *grid, 1, block, 1, 1, 0, stream, (values, types), 0))


def _compile(path: Path, device: torch.device, definitions: dict[str, object]) -> bytes:
    major, minor = torch.cuda.get_device_capability(device)
    options = [f"--gpu-architecture=sm_{major}{minor}", "--std=c++17", "--fmad=false"]
    options += [f"--define-macro={name}={value}" for name, value in definitions.items()]
    encoded = [option.encode() for option in options]
    program = _checked(nvrtc.nvrtcCreateProgram(path.read_bytes(), path.name.encode(), 0, [], []))
    (status,) = nvrtc.nvrtcCompileProgram(program, len(encoded), encoded)
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        log = b" " * _checked(nvrtc.nvrtcGetProgramLogSize(program))
        nvrtc.nvrtcGetProgramLog(program, log)
        raise RuntimeError(f"{path.name}: {status.name}: {log.decode(errors='replace').strip()}")
    code = b" " * _checked(nvrtc.nvrtcGetCUBINSize(program))
    _checked(nvrtc.nvrtcGetCUBIN(program, code))
    return code


def _checked(result: tuple) -> object:
    """Give what a call of CUDA returns beside its status."""
    status, *values = result
    if status.value != 0:
        raise RuntimeError(f"CUDA: {status.name}")
    return values[0] if values else None
