"""What configs/inference.json names."""
