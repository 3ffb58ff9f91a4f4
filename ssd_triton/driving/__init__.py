"""From detections in a video to SAFE, WARN or BRAKE: camera, tracks, decisions, pictures, the demo."""
