"""Stage 6b: the gate. Every object is judged before it leaves."""
