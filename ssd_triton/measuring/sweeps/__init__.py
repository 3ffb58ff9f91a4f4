"""Measuring a served model with Triton's own load generator."""
