"""Tests of the live page that need no server."""
