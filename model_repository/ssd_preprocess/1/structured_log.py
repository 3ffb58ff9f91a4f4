# Written from backends/structured_log.py by the build, do not edit. Digest: 2add5401f4eeb8cf
"""JSON lines in Triton's log about requests, with their ids. Needs only Python and Triton.

Triton puts its own prefix before each line, and Triton 24 quotes the line once more: ``sed 's/^[^]]*] //' LOG | jq -R
'fromjson? | fromjson?'`` leaves the JSON, and so does ``ssd-triton status --log LOG``.
"""

import contextlib
import datetime
import json
import time

import triton_python_backend_utils as pb_utils

LINES_A_SECOND = 10
"""Further lines are counted, not written: bad requests must not fill a disk."""
BURST_LINES = 100
MAX_REASON_CHARACTERS = 500


class StructuredLog:
    """The log of one instance of a model."""

    def __init__(self, model_name):
        """Write nothing yet."""
        self.model_name = model_name
        self.allowance = float(BURST_LINES)
        self.checked_s = time.monotonic()
        self.suppressed = 0

    def write(self, event, requests, reason):
        """Write a line about requests, unless too many were written recently.

        Args:
            event: ``refused`` for faults of the client, ``failed`` for all others.
            requests: Triton's requests.
            reason: The reason.
        """
        if not self._may_write():
            self.suppressed += 1
            return
        line = {
            "event": event,
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds"),
            "model": self.model_name,
            "request_ids": [request.request_id() for request in requests],
            "reason": str(reason)[:MAX_REASON_CHARACTERS],
            "suppressed_before": self.suppressed,
        }
        self.suppressed = 0
        log = pb_utils.Logger.log_error if event == "failed" else pb_utils.Logger.log_warn
        # ASCII and without line breaks, whatever a request puts into the reason.
        log(json.dumps(line))

    @contextlib.contextmanager
    def failures(self, requests):
        """Write what the block raises, and raise it again."""
        try:
            yield
        except Exception as error:
            self.write("failed", requests, f"{type(error).__name__}: {error}")
            raise

    def _may_write(self):
        now_s = time.monotonic()
        self.allowance = min(BURST_LINES, self.allowance + LINES_A_SECOND * (now_s - self.checked_s))
        self.checked_s = now_s
        if self.allowance < 1:
            return False
        self.allowance -= 1
        return True
