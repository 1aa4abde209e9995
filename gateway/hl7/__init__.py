"""HL7 v2 as both directions need it: MLLP client and server, character sets, a reader, acknowledgements."""
