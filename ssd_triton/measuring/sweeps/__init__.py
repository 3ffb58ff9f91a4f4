"""Measures a served model with Triton's own load generator."""
