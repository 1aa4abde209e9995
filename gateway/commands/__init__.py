"""The commands of `hilum`, one file each; `gateway.cli` puts them together."""
