"""COCO evaluation: a dataset, a server's or a network's detections in it, and pycocotools' figures."""
