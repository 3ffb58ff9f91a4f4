"""Positions and motion of detected road users, and the decision to warn or to brake.

Detections, times and the ego's motion go in, decisions come out (:mod:`ssd_triton.driving.braking.pipeline`),
independently of video, drawing and server. A demonstration, not a safety system: see the limits in
:mod:`ssd_triton.driving.camera.model`, :mod:`ssd_triton.driving.braking.ranging` and
:mod:`ssd_triton.driving.braking.hazard`.
"""
