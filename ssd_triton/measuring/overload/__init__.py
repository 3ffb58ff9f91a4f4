"""Overloads a server: measures what it refuses, and how long the rest takes."""
