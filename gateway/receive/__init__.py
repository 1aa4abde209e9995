"""Stage 1: bytes from the network to an Instance, durable before it is acknowledged."""
