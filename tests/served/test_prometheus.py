"""The dashboard's queries, answered by a real Prometheus that scrapes a real server under load."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ssd_triton.client import DetectorClient
from ssd_triton.common.files import ROOT
from ssd_triton.serving.server import EmbeddedServer
from tests.conftest import THOROUGH, free_url
from tests.served.serving import wait_until

FILES = ROOT / "deploy/helm/ssd-triton/files"
PICTURE = ROOT / "reports/view/dashboard.png"
OF_A_GPU = ("GPU utilisation", "GPU memory", "GPU power")
LONGEST_WAIT_S = 60
SHOWN_S = 90 if THOROUGH else 0
"""Time under load before the picture is drawn."""
MOST_NAMES = 6
"""In the legend of a panel."""


@contextmanager
def prometheus(folder: Path, metrics_url: str) -> Iterator[str]:
    """``host:port`` of a Prometheus with the project's configuration and rules, that looks every second."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian, Ubuntu: apt install prometheus)")
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [urllib.parse.urlsplit(metrics_url).netloc]
    rules = yaml.safe_load((FILES / "rules.yaml").read_text(encoding="utf-8"))
    for group in rules["groups"]:
        group.pop("interval", None)
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    address = free_url()
    options = (f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, *options, f"--web.listen-address={address}"], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield address
    finally:
        process.terminate()
        process.wait(20)


def ask(address: str, path: str, **parameters: object) -> Any:
    """The result of a query; None while Prometheus starts."""
    try:
        url = f"http://{address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]["result"]
    except OSError:
        return None


def rate(address: str, counter: str) -> float:
    """Of all series of a counter together, per second, over the last ten."""
    [sum_of_rates] = ask(address, "query", query=f"sum(rate({counter}[10s]))")
    return float(sum_of_rates["value"][1])


def panels() -> dict[str, list[str]]:
    """The queries of each panel, as Grafana sends them when nothing is chosen."""
    dashboard = json.loads((FILES / "dashboard.json").read_text(encoding="utf-8"))
    chosen = {"$namespace": ".*", "$pod": ".*", "$__rate_interval": "10s"}

    def filled(expression: str) -> str:
        for name, value in chosen.items():
            expression = expression.replace(name, value)
        return expression

    return {panel["title"]: [filled(t["expr"]) for t in panel.get("targets", [])] for panel in dashboard["panels"]}


def draw(address: str, start_s: float, end_s: float) -> None:
    """A picture of each panel's data, to look at."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(4, 4, figsize=(18, 12), layout="constrained")
    for axis, (title, queries) in zip(axes.flat, panels().items(), strict=False):
        axis.set_title(title, fontsize=11)
        axis.grid(visible=True, alpha=0.3)
        for query in queries:
            for series in ask(address, "query_range", query=query, start=start_s, end=end_s, step=1) or []:
                names = (series["metric"].get(key, "") for key in ("model", "reason"))
                times_s = [float(time_s) - start_s for time_s, _ in series["values"]]
                label = " ".join(filter(None, names))
                values = [float(value) for _, value in series["values"]]
                axis.plot(times_s, values, label=label if any(values) else None)
        handles, names = axis.get_legend_handles_labels()
        if names:
            axis.legend(handles[:MOST_NAMES], names[:MOST_NAMES], fontsize=8, loc="lower right")
    for axis in list(axes.flat)[len(panels()) :]:
        axis.set_axis_off()
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=80)
    plt.close(figure)


def test_every_panel_of_the_dashboard_has_data(
    light_server: EmbeddedServer, photograph: bytes, photograph_rgb: np.ndarray, tmp_path: Path
) -> None:
    ended = threading.Event()

    def load() -> None:
        with DetectorClient(light_server.url("grpc")) as client:
            while not ended.is_set():
                list(client.map([photograph] * 8 + [b"no image"]))
                client.detect_frame(photograph_rgb)

    with prometheus(tmp_path, light_server.metrics_url) as address:
        worker = threading.Thread(target=load)
        worker.start()
        start_s = time.time()
        try:
            wanted = [(title, query) for title, queries in panels().items() for query in queries]
            missing = [pair for pair in wanted if pair[0] not in OF_A_GPU]
            assert len(missing) > 12
            while missing and time.time() - start_s < LONGEST_WAIT_S:
                time.sleep(1)
                missing = [pair for pair in missing if not finite(ask(address, "query", query=pair[1]))]
            assert missing == []
            # Without a GPU there are no such series, but the queries are answered.
            assert all(ask(address, "query", query=query) is not None for title, query in wanted if title in OF_A_GPU)
            wait_until(lambda: rate(address, 'nv_inference_count{job="ssd-triton", model="ssd"}') > 1)
            wait_until(lambda: rate(address, 'ssd_refused_requests_total{job="ssd-triton"}') > 0)
            time.sleep(SHOWN_S)
            draw(address, start_s, time.time())
        finally:
            ended.set()
            worker.join()


def finite(result: Any) -> bool:
    """Whether a query has values, and numbers all of them."""
    return bool(result) and all(series["value"][1] not in ("NaN", "+Inf", "-Inf") for series in result)
