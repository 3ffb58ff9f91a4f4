"""COCO evaluation: a dataset, detections of it from a server or a network, and pycocotools' figures of both."""
