"""Pictures and videos: reading, writing and drawing."""
