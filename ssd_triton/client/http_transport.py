"""Triton's HTTP protocol, through tritonclient."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Any

import gevent
import gevent.ssl
import tritonclient.http as http_client
from geventhttpclient import connectionpool
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError, HTTPProtocolViolationError
from rapidjson import JSONDecodeError
from tritonclient.utils import InferenceServerException

from ssd_triton.client.causes import from_http_error, unknown_host, unreachable, untrusted, wrong_port
from ssd_triton.client.endpoint import ADMIN_HEADER, parse_endpoint
from ssd_triton.client.errors import DeadlineExceededError, ServerFailedError, TlsError
from ssd_triton.client.tls import Tls
from ssd_triton.client.transport import Outputs, Result, SharedInput, Transport, as_input, as_timeouts
from ssd_triton.common.arrays import AnyArray


class HttpTransport(Transport):
    """HTTP: each thread has its own client of tritonclient, which is not safe to share between threads."""

    def __init__(self, url: str, timeout_s: float, tls: Tls | None = None) -> None:
        super().__init__(parse_endpoint(url, "http", tls=tls is not None).target)
        self._timeout_s = timeout_s
        self._tls_arguments = {} if tls is None else _tls_arguments(tls)
        self._local = threading.local()
        self._clients: list[Any] = []

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
        """See :class:`Transport`."""
        requested = [http_client.InferRequestedOutput(name, binary_data=True) for name in outputs]
        inputs = [as_input(http_client, input_name, value)]
        timeout_s, timeout_us = as_timeouts(timeout_s)

        def run() -> Any:
            with gevent.Timeout(timeout_s, TimeoutError("deadline exceeded")):
                return self._client().infer(model, inputs, outputs=requested, request_id=request_id, timeout=timeout_us)

        result = self._call(run)
        return {name: result.as_numpy(name) for name in outputs}

    def registered_shared_memory(self) -> set[str]:
        """See :class:`Transport`."""
        return {region["name"] for region in self._call(lambda: self._client().get_system_shared_memory_status())}

    def model_config(self, model: str) -> dict[str, Any]:
        """See :class:`Transport`."""
        config: dict[str, Any] = self._call(lambda: self._client().get_model_config(model))
        return config

    def server_version(self) -> str:
        """See :class:`Transport`."""
        return str(self._call(lambda: self._client().get_server_metadata())["version"])

    def statistics(self) -> list[dict[str, Any]]:
        """See :class:`Transport`."""
        models: list[dict[str, Any]] = self._call(lambda: self._client().get_inference_statistics())["model_stats"]
        return models

    def repository_index(self, admin_key: str | None) -> list[dict[str, Any]]:
        """See :class:`Transport`."""
        headers = {ADMIN_HEADER: admin_key} if admin_key else None
        models: list[dict[str, Any]] = self._call(lambda: self._client().get_model_repository_index(headers=headers))
        return models

    def close(self) -> None:
        """See :class:`Transport`."""
        for client in self._clients:
            client.close()

    def _client(self) -> Any:
        if not hasattr(self._local, "client"):
            self._local.client = http_client.InferenceServerClient(
                self._url,
                connection_timeout=self._timeout_s,
                network_timeout=self._timeout_s,
                **self._tls_arguments,
            )
            self._clients.append(self._local.client)
        return self._local.client

    def _call(self, call: Callable[[], Result]) -> Result:
        try:
            return call()
        except InferenceServerException as error:
            raise from_http_error(error, self._url) from error
        except JSONDecodeError as error:
            raise ServerFailedError(
                f"{self._url}: got an answer that is not JSON, expected one of Triton's HTTP port; give another --url"
            ) from error
        except TimeoutError as error:
            raise DeadlineExceededError(f"{self._url}: no answer within the deadline") from error
        except ssl.SSLError as error:
            raise untrusted(self._url, str(error)) from error
        except socket.gaierror as error:
            raise unknown_host(self._url, str(error.strerror)) from error
        except HTTPParseError as error:
            raise wrong_port(self._url, "grpc", "http") from error
        except (OSError, HTTPConnectionClosed, HTTPProtocolViolationError) as error:
            raise unreachable(self._url, str(error)) from error


def _tls_arguments(tls: Tls) -> dict[str, Any]:
    if not hasattr(connectionpool, "SSLConnectionPool"):
        raise TlsError("tritonclient's HTTP library has TLS up to Python 3.11 only: use --protocol grpc")
    context = tls.context(gevent.ssl.create_default_context)
    return {"ssl": True, "ssl_context_factory": lambda: context}
