"""Triton's gRPC protocol, through tritonclient."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import tritonclient.grpc as grpc_client
from tritonclient.utils import InferenceServerException

from ssd_triton.client.causes import from_grpc_error, wrong_port
from ssd_triton.client.endpoint import GRPC_ADMIN_HEADER, Endpoint, parse_endpoint
from ssd_triton.client.tls import Tls
from ssd_triton.client.transport import Outputs, Result, SharedInput, Transport, as_input, as_timeouts
from ssd_triton.common.arrays import AnyArray

CHANNEL_ARGS = (
    # Messages of any size, as tritonclient allows by default: custom arguments replace its own.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # By default gRPC waits a second or more before it reconnects, and fails every retry until then.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Despite its name, the time limit of one attempt: TLS through a busy proxy or a slow network takes a while.
    ("grpc.min_reconnect_backoff_ms", 5000),
    # By default gRPC sends all requests to the first replica that answers.
    ("grpc.lb_policy_name", "round_robin"),
)
"""Options of a gRPC channel: messages of any size, quick reconnection, replicas in turn."""
_NOT_GRPC = ("Socket closed", "HTTP/2")
"""Occur in gRPC's messages when the other side hangs up or answers in another protocol."""
_PROBE_TIMEOUT_S = 1.0


class GrpcTransport(Transport):
    """gRPC: one channel for all threads."""

    def __init__(self, url: str, timeout_s: float, tls: Tls | None = None) -> None:
        self._endpoint = parse_endpoint(url, "grpc", tls=tls is not None)
        super().__init__(self._endpoint.target, client_timeout=timeout_s)
        self._channel = open_channel(self._endpoint, tls)

    def infer(
        self,
        model: str,
        input_name: str,
        value: AnyArray | SharedInput,
        outputs: Sequence[str],
        timeout_s: float,
        *,
        request_id: str = "",
    ) -> Outputs:
        """See :class:`Transport`; the deadline is the call's own."""
        requested = [grpc_client.InferRequestedOutput(name) for name in outputs]
        inputs = [as_input(grpc_client, input_name, value)]
        timeout_s, timeout_us = as_timeouts(timeout_s)
        result = self._call(
            lambda: self._channel.infer(
                model,
                inputs,
                outputs=requested,
                request_id=request_id,
                client_timeout=timeout_s,
                timeout=timeout_us,
            )
        )
        return {name: result.as_numpy(name) for name in outputs}

    def registered_shared_memory(self) -> set[str]:
        """See :class:`Transport`."""
        return set(self._call(lambda: self._channel.get_system_shared_memory_status(**self._limit)).regions)

    def model_config(self, model: str) -> dict[str, Any]:
        """See :class:`Transport`."""
        found = self._call(lambda: self._channel.get_model_config(model, as_json=True, **self._limit))
        config: dict[str, Any] = found["config"]
        return config

    def server_version(self) -> str:
        """See :class:`Transport`."""
        return str(self._call(lambda: self._channel.get_server_metadata(**self._limit)).version)

    def statistics(self) -> list[dict[str, Any]]:
        """See :class:`Transport`."""
        found = self._call(lambda: self._channel.get_inference_statistics(as_json=True, **self._limit))
        models: list[dict[str, Any]] = found.get("model_stats", [])
        return models

    def repository_index(self, admin_key: str | None) -> list[dict[str, Any]]:
        """See :class:`Transport`."""
        headers = {GRPC_ADMIN_HEADER: admin_key} if admin_key else None
        found = self._call(
            lambda: self._channel.get_model_repository_index(headers=headers, as_json=True, **self._limit)
        )
        models: list[dict[str, Any]] = found.get("models", [])
        return models

    def close(self) -> None:
        """See :class:`Transport`."""
        self._channel.close()

    def _client(self) -> Any:
        return self._channel

    def _call(self, call: Callable[[], Result]) -> Result:
        try:
            return call()
        except InferenceServerException as error:
            if any(words in str(error.message()) for words in _NOT_GRPC) and _speaks_http(self._url):
                raise wrong_port(self._url, "http", "grpc") from error
            raise from_grpc_error(error, self._url) from error


def open_channel(endpoint: Endpoint, tls: Tls | None) -> Any:
    """Open tritonclient's gRPC client."""
    arguments: dict[str, Any] = {}
    if tls is not None:
        arguments = {
            "ssl": True,
            "root_certificates": _text(tls.root_certificates),
            "certificate_chain": _text(tls.certificate),
            "private_key": _text(tls.private_key),
        }
    channel_args = [*CHANNEL_ARGS]
    if endpoint.is_loopback:
        # A proxy cannot reach this machine's loopback. For other hosts, http_proxy and no_proxy apply as usual in gRPC.
        channel_args.append(("grpc.enable_http_proxy", 0))
    return grpc_client.InferenceServerClient(endpoint.target, channel_args=channel_args, **arguments)


def _speaks_http(target: str) -> bool:
    """Whether the port answers HTTP/1: one that closes a gRPC connection may be Triton's HTTP port."""
    try:
        with closing(http.client.HTTPConnection(target, timeout=_PROBE_TIMEOUT_S)) as connection:
            connection.request("GET", "/v2/health/live")
            connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    return True


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
