"""Hostile requests of all kinds against a running server, beside good ones whose answers are checked."""
