"""A model as a site gets it: a MONAI bundle with its `hilum.yaml`, and who vouches for it."""
