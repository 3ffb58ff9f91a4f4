"""Fuzzing of the preprocessing: real image files, mutated, against the code that decodes them."""
