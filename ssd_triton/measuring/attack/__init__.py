"""Sends hostile requests of all kinds to a running server, beside good ones whose answers are checked."""
