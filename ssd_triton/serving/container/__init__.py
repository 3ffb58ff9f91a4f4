"""Starting in a container: engines for the GPU that is there, from a cache, then Triton in this process's place."""
