"""The page as a whole: the server behind it, accessibility, weight, and who may see it."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from ssd_triton.serving.server import EmbeddedServer
from tests.conftest import assert_one_line_error
from tests.served.helpers import Gate
from tests.served.pages import CLIP, FRAMES, Running, request, running_page, visit
from tests.served.proxies import Certificates


def test_server_page_shows_what_status_knows(browser: Browser, running: Running, photograph: bytes) -> None:
    with visit(browser, running.address) as seen:
        seen.turn_to("server")
        seen.has_text("#server-figures", "onnx_fp32")
        for _ in range(3):
            request(running.address, "POST", "/api/detect", photograph)
        seen.has_text("#models", "ssd_postprocess")
        seen.page.wait_for_selector('#server-charts canvas[aria-label^="Images a second: images "]')
        assert "Triton 2." in seen.text("#health")
        seen.keep("server")
        seen.check()


@pytest.mark.parametrize(("width_px", "dark"), [(1280, False), (390, True)])
def test_pages_are_accessible(browser: Browser, running: Running, width_px: int, dark: bool) -> None:
    """No finding of axe-core that it calls serious or critical, and no scrolling sideways on a phone."""
    with visit(browser, running.address, width_px=width_px, dark=dark) as seen:
        seen.page.wait_for_selector("#try-frame rect.box")
        for name in ("try", "camera", "drive", "server"):
            seen.turn_to(name)
            if name == "drive":
                seen.page.select_option("#clip", label=CLIP)
                seen.has_text("#drive-caption", f"of {FRAMES}")
            if name == "server":
                seen.has_text("#models", "ssd_postprocess")
            seen.keep(f"{name}-{width_px}-{'dark' if dark else 'light'}")
            results = Axe().run(seen.page).response
            serious = [one for one in results["violations"] if one["impact"] in ("serious", "critical")]
            assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in serious] == []
            assert seen.page.evaluate("document.documentElement.scrollWidth") <= width_px


def test_page_is_light_and_quick(browser: Browser, running: Running) -> None:
    with visit(browser, running.address) as seen:
        seen.page.wait_for_selector("#try-frame rect.box")
        own = "performance.getEntriesByType('resource').filter(e => !e.name.includes('/api/'))"
        weight = seen.page.evaluate(f"{own}.reduce((sum, entry) => sum + entry.decodedBodySize, 0)")
        assert 10_000 < weight < 300_000
        (paint_ms,) = seen.page.evaluate(
            "performance.getEntriesByName('first-contentful-paint').map(entry => entry.startTime)"
        )
        # 0.2 s on an idle machine; the tests run beside others.
        assert paint_ms < 5000


def test_a_page_outlives_a_restart_of_the_server(browser: Browser, light_server: EmbeddedServer) -> None:
    gate = Gate(light_server.url("grpc"))
    with running_page("--url", gate.url, "--metrics-url", light_server.metrics_url) as (address, _):
        with visit(browser, address) as seen:
            seen.has_text("#alert", "the server does not answer")
            gate.open()
            seen.has_text("#health", "ready")
            seen.page.wait_for_selector("#try-frame rect.box")
            assert not seen.page.is_visible("#alert")
            seen.check("status of 503")
    gate.close()


def test_beyond_loopback_the_page_takes_tls_and_a_token(
    light_server: EmbeddedServer, certificates: Certificates, run_main: Callable[..., Any]
) -> None:
    everywhere = "0.0.0.0"  # noqa: S104 - what is tested
    result = run_main("clients/live_view.py", "--host", everywhere, "--port", "0", "--no-browser")
    assert_one_line_error(result, "without TLS", "--page-certificate")
    pair = certificates.server
    options = ("--host", everywhere, "--page-certificate", pair.certificate, "--page-private-key", pair.private_key)
    with running_page("--url", light_server.url("grpc"), *options) as (address, log):
        parts = urlsplit(address)
        assert parts.scheme == "https"
        context = ssl.create_default_context(cafile=str(certificates.authority))

        def get(path: str, cookie: str = "") -> http.client.HTTPResponse:
            connection = http.client.HTTPSConnection("127.0.0.1", parts.port, context=context, timeout=30)
            connection.request("GET", path, headers={"Cookie": cookie} if cookie else {})
            answer = connection.getresponse()
            answer.read()
            connection.close()
            return answer

        assert [get(path).status for path in ("/", "/api/status", "/?token=wrong")] == [403] * 3
        entered = get(f"/?{parts.query}")
        assert entered.status == 303
        cookie = (entered.getheader("set-cookie") or "").split(";")[0]
        assert get("/api/status", cookie).status == 200
        assert log.read_text().count(parts.query) == 1


def test_a_taken_port_is_one_line(running: Running, run_main: Callable[..., Any], light_server: EmbeddedServer) -> None:
    port = urlsplit(running.address).port
    result = run_main("clients/live_view.py", "--port", port, "--no-browser", "--url", light_server.url("grpc"))
    assert_one_line_error(result, f"cannot listen on 127.0.0.1:{port}", "--port")


def test_a_server_that_does_not_start_ends_the_page_in_one_line(run_script: Callable[..., Any], tmp_path: Path) -> None:
    options = ("--serve", "onnx_fp32", "--no-browser", "--port", "0", "--set", "server.startup_timeout_s=0.01")
    result = run_script("clients/live_view.py", *options)
    assert_one_line_error(result, "tritonserver was not ready after 0.01 s")
    assert result.stdout.startswith("page: http://127.0.0.1:")
