"""Training: data and augmentation on the device, matching, loss, the loop, snapshots, model cards."""
