"""Labelling: boxes of another detector become annotations to train on."""
