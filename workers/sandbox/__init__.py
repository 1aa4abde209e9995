"""What a model's process can reach, taken away by the kernel before any of the model's code is read (ADR 0005)."""
