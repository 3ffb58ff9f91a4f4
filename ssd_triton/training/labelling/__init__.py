"""Boxes of another detector, as annotations to train on."""
