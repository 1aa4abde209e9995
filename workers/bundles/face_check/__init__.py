"""A small 3D network that tells whether a head MR still shows the face."""
