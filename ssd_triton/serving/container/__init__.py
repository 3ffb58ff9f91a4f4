"""Start-up in a container: gets an engine for the GPU from a cache, then replaces this process with Triton."""
