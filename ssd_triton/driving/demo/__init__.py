"""The braking demonstration: a drive as video, detections through a Triton server, decisions, pictures and records.

A demonstration, not a safety system.
"""
