"""compose.yaml: valid by the specification's own schema, and nothing of it beyond loopback."""

from __future__ import annotations

import subprocess
import sys

import yaml

from ssd_triton.commands.parser import parse_verb
from ssd_triton.common.files import ROOT


def test_compose_is_valid_and_stays_on_loopback() -> None:
    file = ROOT / "compose.yaml"
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    services = yaml.safe_load(file.read_text(encoding="utf-8"))["services"]
    for service in services.values():
        assert service["network_mode"] == "host" and "ports" not in service
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (ROOT / source).exists(), source
    # The entry point comes with --host 0.0.0.0; of two, the last counts.
    _, _, server = parse_verb("container", ["--host", "0.0.0.0", *services["server"]["command"]])  # noqa: S104
    _, _, page = parse_verb("view", services["page"]["command"][-1].partition("ssd-triton view ")[2].split())
    assert server.server.host == page.view.host == "127.0.0.1"
    assert "--web.listen-address=127.0.0.1:9090" in services["prometheus"]["command"]
