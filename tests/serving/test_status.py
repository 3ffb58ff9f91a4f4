"""The state of a server without a server, and events read out of logs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

from ssd_triton.serving.server.log_events import read_events
from tests.conftest import assert_one_line_error, free_url

RunScript = Callable[..., "subprocess.CompletedProcess[str]"]


def test_status_without_a_server(run_script: RunScript) -> None:
    result = run_script("tools/status.py", "--url", free_url(), "--no-metrics", "--timeout-s", 1)
    assert_one_line_error(result, "no Triton server answers", "ssd-triton serve")


# --- Logs -------------------------------------------------------------------------------------------------------------


def test_events_are_read_out_of_any_log() -> None:
    event = {"event": "refused", "model": "ssd_preprocess", "request_ids": ["a-1"], "reason": 'got ] and " and é'}
    text = json.dumps(event)
    lines = [
        'I1126 05:25:44.352936 17180 server.cc:345] "Timeout 5: an event"',
        f"W1126 05:25:08.222662 17180 structured_log.py:51] {json.dumps(text)}",
        f"2026-11-26T05:25:08Z W 17180 structured_log.py:51] {text}",
        "| event | a table |",
        'W1126 05:25:08.222662 17180 structured_log.py:51] "{\\"event\\": cut off',
    ]
    assert list(read_events(lines)) == [event, event]
