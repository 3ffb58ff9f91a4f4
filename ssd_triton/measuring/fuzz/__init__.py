"""Fuzzes the preprocessing: feeds mutated image files to the code that decodes them."""
