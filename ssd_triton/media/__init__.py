"""Pictures and videos: read, written, drawn on."""
