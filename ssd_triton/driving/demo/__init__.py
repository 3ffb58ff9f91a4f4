"""The braking demonstration: from a video through detections and decisions to an annotated video and its records.

A demonstration, not a safety system.
"""
