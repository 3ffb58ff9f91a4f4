"""Tests of the client, without a server."""
