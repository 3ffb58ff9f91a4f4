"""Where detected road users are on the road, and whether to warn or to brake for them.

A demonstration, not a safety system: see the limits named in :mod:`ssd_triton.braking.geometry` and
:mod:`ssd_triton.braking.decision`.
"""
