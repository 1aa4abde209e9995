"""The `hilum` command: thin; each command's work is in `gateway.commands`."""

from gateway.cli.app import main

__all__ = ["main"]
