"""More requests than a server can answer: what it refuses, and how long the rest takes."""
