"""Which architectures can be explained by which methods: a table made from tiny random models."""
