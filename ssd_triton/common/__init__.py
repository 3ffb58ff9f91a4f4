"""What all other packages here use: errors, files, detections, processes, progress."""
