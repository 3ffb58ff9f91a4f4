"""Images and requests that are made to harm, sent to a real server."""

from __future__ import annotations

import struct
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from ssd_triton.client import DetectorClient, RequestRefusedError
from ssd_triton.common.model_names import PREPROCESS
from ssd_triton.measuring.attack.files import noise
from ssd_triton.measuring.fuzz.run import fuzz_server
from ssd_triton.measuring.request_cases import encode
from ssd_triton.serving.server import EmbeddedServer
from tests.conftest import children_of

# --- The fuzzer -------------------------------------------------------------------------------------------------------


def test_a_real_server_survives_the_same(light_server: EmbeddedServer, tmp_path: Path, photograph: bytes) -> None:
    stubs = children_of(light_server.pid)
    with DetectorClient(light_server.url("grpc"), timeout_s=60) as client:
        before = client.submit_preprocess(photograph).result()
        result = fuzz_server(client, tmp_path, inputs=300, seed=2)
        assert (client.submit_preprocess(photograph).result() == before).all()
    assert result.findings == []
    assert sum(result.outcomes.values()) == 300
    assert children_of(light_server.pid) == stubs


# --- Large requests to a real server ----------------------------------------------------------------------------------


def resident_bytes(pids: list[int]) -> int:
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 for pid in pids)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_request_of_100_mb_is_refused_and_let_go(
    light_server: EmbeddedServer, protocol: str, photograph: bytes
) -> None:
    with DetectorClient(light_server.url(protocol), protocol=protocol, timeout_s=60) as client:  # type: ignore[arg-type]
        with pytest.raises(RequestRefusedError, match="got 100000000 bytes, expected at most 67108864"):
            client.detect(bytes(100_000_000))
        before = resident_bytes(children_of(light_server.pid))
        for _ in range(2):
            with pytest.raises(RequestRefusedError):
                client.detect(bytes(100_000_000))
        # Refusals used to keep their files until Python collected garbage: 200 MB each. What allocators of the server
        # hold back varies by some 60 MB; it is less than one file.
        assert resident_bytes(children_of(light_server.pid)) - before < 100_000_000
        assert client.submit_preprocess(photograph).result().shape == (300, 300, 3)


def test_broken_tensors_never_reach_the_model(light_server: EmbeddedServer) -> None:
    """As other clients may send them: Triton compares lengths with what there is, which its Python helpers do not."""
    whole = encode(noise(), "PNG")
    one = struct.pack("<I", len(whole)) + whole
    broken = [b"", b"\1\0", struct.pack("<I", 100) + b"abc", struct.pack("<I", 2**32 - 1) + b"a", one + b"zz", 2 * one]
    with grpc.insecure_channel(light_server.url("grpc")) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for payload in [*broken, one]:
            request = service_pb2.ModelInferRequest(model_name=PREPROCESS)
            tensor = request.inputs.add(name="IMAGE", datatype="BYTES")
            tensor.shape.extend([1, 1])
            request.raw_input_contents.append(payload)
            if payload is one:
                assert len(stub.ModelInfer(request, timeout=30).outputs) == 2
                continue
            with pytest.raises(grpc.RpcError) as error:
                stub.ModelInfer(request, timeout=30)
            assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
