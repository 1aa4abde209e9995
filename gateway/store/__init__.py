"""Adapters of the ports that keep things: the ledger (SQL) and the spool (files)."""
