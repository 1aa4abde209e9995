"""Stage 4: Jobs to the broker, which only rings; the ledger is the queue."""
