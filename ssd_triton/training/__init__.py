"""Training: images and boxes on the device, augmentation, matching, loss, the loop, snapshots and what is written."""
