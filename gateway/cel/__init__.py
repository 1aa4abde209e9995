"""CEL (https://cel.dev), the language of conditions and rules: compiled once, evaluated over plain values, never `eval`."""
