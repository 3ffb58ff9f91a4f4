"""Starting in a container: an engine for its GPU, from a cache, then Triton in place of this process."""
