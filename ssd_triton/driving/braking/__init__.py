"""Where detected road users are on the road, how they move, and whether to warn or to brake for them.

It knows no video, drawing or server: detections, times and the car's own motion go in, decisions come out
(:mod:`ssd_triton.driving.braking.pipeline`). A demonstration, not a safety system: see the limits named in
:mod:`ssd_triton.driving.camera.model`,
:mod:`ssd_triton.driving.braking.ranging` and :mod:`ssd_triton.driving.braking.hazard`.
"""
