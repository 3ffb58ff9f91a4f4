"""The model repository, its artefacts, and the servers that load it."""
