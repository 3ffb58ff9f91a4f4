#!/bin/sh
# Succeeds if the server returns detections for a small picture: sh alive.sh [HOST:PORT of HTTP]
#
# The liveness probe of the chart and of KServe, and the image's HEALTHCHECK. /v2/health/live and /ready are not enough:
# they stay 200 when a process of the Python backend has died and every request fails. A server that is merely busy
# refuses some requests with 503, but one of several attempts succeeds. Ends within 30 s; needs only curl.
set -eu

# A black PNG of 8 x 8 px, the smallest that `ssd` takes (min_side_px).
picture=iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAADElEQVR42mNgoA4AAABIAAEQRe/SAAAAAElFTkSuQmCC

# With a header of 0 bytes, the whole body is the only input.
printf %s "$picture" | base64 -d | curl --silent --show-error --fail --output /dev/null \
    --retry 10 --retry-delay 1 --retry-max-time 12 --max-time 15 \
    --header 'Inference-Header-Content-Length: 0' --header 'Content-Type: application/octet-stream' \
    --data-binary @- "http://${1:-127.0.0.1:8000}/v2/models/ssd/infer"
