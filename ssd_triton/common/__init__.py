"""What every room uses: errors, files, detections, processes, progress."""
